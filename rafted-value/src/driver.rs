//! One loop: drain the inbox, step the engine, write, send, answer.

use std::sync::Arc;

use futures_util::future::{Either, pending, select};
use tokio::sync::mpsc;

use crate::engine::{Clocks, Engine, Input};
use crate::env::{BoxFuture, Env, MonoTime};
use crate::errand::Errands;
use crate::message::BatchWriter;
use crate::outputs::Outputs;
use crate::service::{LOOP_SERVICE, PEER_SERVICE};
use crate::transport::{Lane, SendError};
use crate::writer::DiskLine;

/// An engine with its ways in and out.
pub(crate) struct Driver {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) engine: Engine,
    pub(crate) inbox: mpsc::Receiver<Input>,
    /// The way to the disk and back, on a host that has one.
    pub(crate) disk: Option<DiskLine>,
    pub(crate) errands: Errands,
    /// Inputs that one turn takes at most.
    pub(crate) inputs_max: usize,
    /// What it waits for beside inputs, and until when: most turns leave it as it is.
    pub(crate) alarm: Option<(MonoTime, BoxFuture<()>)>,
}

/// The clocks of this instant.
pub(crate) fn clocks(env: &dyn Env) -> Clocks {
    Clocks { now: env.now(), wall_ms: env.wall_ms() }
}

impl Driver {
    /// Runs until the inbox is closed. `out` is what the engine wants done already.
    pub(crate) async fn run(mut self, mut out: Outputs) {
        // It grows to what comes in: room for a thousand inputs is more than most loops ever need, and 180 KB.
        let mut inputs = Vec::new();
        self.perform(&mut out).await;
        while self.wait(&mut inputs).await {
            // The clocks are read after the inputs were taken in: a query that is answered at this time came before it.
            let clocks = clocks(self.env.as_ref());
            self.engine.step(&mut inputs, clocks, &mut out);
            self.engine.has_stepped(clocks.now, self.env.now());
            self.perform(&mut out).await;
            if self.engine.has_worked() {
                self.engine.end_turn(crate::driver::clocks(self.env.as_ref()));
            }
        }
    }

    /// Waits for inputs or for the time at which the engine wants to be stepped without any; false at the end.
    async fn wait(&mut self, inputs: &mut Vec<Input>) -> bool {
        let (inbox, inputs_max) = (&mut self.inbox, self.inputs_max);
        let deadline = self.engine.next_tick();
        if self.alarm.as_ref().map(|(at, _)| *at) != deadline {
            self.alarm = deadline.map(|at| (at, self.env.sleep_until(at)));
        }
        let alarm = &mut self.alarm;
        let clock = async {
            match alarm {
                Some((_, sleep)) => sleep.await,
                None => pending().await,
            }
        };
        let (disk, errands) = (&mut self.disk, &mut self.errands);
        let kept = async {
            match disk {
                Some(line) => Input::Disk(line.hear().await),
                None => pending().await,
            }
        };
        let heard = async {
            let (kept, done) = (std::pin::pin!(kept), std::pin::pin!(errands.hear()));
            match select(kept, done).await {
                Either::Left((input, _)) => input,
                Either::Right((done, _)) => Input::Errand(done),
            }
        };
        let (event, rang) = {
            let (clients, heard, clock) = (
                std::pin::pin!(inbox.recv_many(inputs, inputs_max)),
                std::pin::pin!(heard),
                std::pin::pin!(clock),
            );
            match select(clients, select(heard, clock)).await {
                Either::Left((0, _)) => return false,
                Either::Right((Either::Left((event, _)), _)) => (Some(event), false),
                Either::Left(_) => (None, false),
                Either::Right((Either::Right(_), _)) => (None, true),
            }
        };
        if rang {
            self.alarm = None;
        }
        inputs.extend(event);
        // What the disk has said meanwhile goes with it: one turn lets go what one sync has kept.
        if let Some(line) = &mut self.disk {
            inputs.extend(std::iter::from_fn(|| line.try_hear()).map(Input::Disk));
        }
        // Under load the inbox is never empty, and nothing else would be heard.
        inputs.extend(std::iter::from_fn(|| self.errands.try_hear()).map(Input::Errand));
        true
    }

    async fn perform(&mut self, out: &mut Outputs) {
        for ((node, lane), mut writer) in std::mem::take(&mut out.messages) {
            for batch in BatchWriter::take(&mut writer) {
                if let Err(error) = self.env.transport().cast(node, lane, PEER_SERVICE, batch) {
                    metrics::counter!("rafted_value_peer_batches_unsent_total").increment(1);
                    if matches!(error, SendError::TooLarge { .. }) {
                        tracing::warn!(%node, ?lane, %error, "a batch can never be sent");
                    } else {
                        tracing::trace!(%node, ?lane, %error, "a batch is not sent");
                    }
                }
            }
        }
        for (node, message) in out.beats.drain(..) {
            // Whoever does not hear it thinks of us what there is to think.
            let payload = crate::data::encode(&message);
            if let Err(error) = self.env.transport().cast(node, Lane::Control, LOOP_SERVICE, payload) {
                tracing::trace!(%node, %error, "a loop's beat is not sent");
            }
        }
        for errand in out.errands.drain(..) {
            self.errands.order(&self.env, errand);
        }
        for answer in out.answers.drain(..) {
            answer.deliver();
        }
        if let Some(line) = &mut self.disk {
            line.write(out).await;
        }
    }
}

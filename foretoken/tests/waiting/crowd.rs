//! Futures that wait, polled only when they have been woken: a missed wake-up is a caller that never comes back.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use foretoken::TakeError;

pub(crate) type Answer = Result<(), TakeError>;

/// Callers by number, in the order of coming.
#[derive(Default)]
pub(crate) struct Crowd<'a> {
    woken: Arc<Mutex<VecDeque<usize>>>,
    waiting: BTreeMap<usize, Pin<Box<dyn Future<Output = Answer> + 'a>>>,
    came: usize,
    answers: Vec<(usize, Answer)>,
}

struct Bell {
    caller: usize,
    woken: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.lock().expect("no test panics while it holds this").push_back(self.caller);
    }
}

impl<'a> Crowd<'a> {
    /// Polls one more caller for the first time, and answers its number.
    pub(crate) fn join(&mut self, caller: impl Future<Output = Answer> + 'a) -> usize {
        self.came += 1;
        self.waiting.insert(self.came, Box::pin(caller));
        self.poll(self.came);
        self.came
    }

    /// Polls whoever has been woken, in the order of being woken, until nobody is; answers who came back and how.
    pub(crate) fn run(&mut self) -> Vec<(usize, Answer)> {
        for _ in 0..10_000 {
            let Some(caller) = self.woken.lock().expect("no test panics while it holds this").pop_front()
            else {
                return std::mem::take(&mut self.answers);
            };
            self.poll(caller);
        }
        panic!("callers are woken without end");
    }

    /// What a caller was told that came back and has not been asked about yet.
    pub(crate) fn answer_of(&mut self, caller: usize) -> Option<Answer> {
        let place = self.answers.iter().position(|(other, _)| *other == caller)?;
        Some(self.answers.remove(place).1)
    }

    /// Drops a caller's future; the answer is whether it was still waiting.
    pub(crate) fn give_up(&mut self, caller: usize) -> bool {
        self.waiting.remove(&caller).is_some()
    }

    /// Polls a caller, woken or not.
    pub(crate) fn poll(&mut self, caller: usize) {
        let waker = Waker::from(Arc::new(Bell { caller, woken: Arc::clone(&self.woken) }));
        let Some(waiting) = self.waiting.get_mut(&caller) else { return };
        if let Poll::Ready(answer) = waiting.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.waiting.remove(&caller);
            self.answers.push((caller, answer));
        }
    }
}

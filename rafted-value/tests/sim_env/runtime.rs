//! A simulated world within a real runtime.

use std::time::Duration;

use rafted_value::sim::{NetConfig, Sim};

/// A task that had received 128 messages once waited for its thread to yield, which a simulation does not.
#[tokio::test]
async fn a_world_may_be_played_within_a_runtime() {
    let sim = Sim::new(1, NetConfig::default());
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let receive = async move {
        let mut sum = 0;
        while let Some(number) = receiver.recv().await {
            sum += number;
        }
        sum
    };
    let task = sim.spawn(receive);
    (0..1_000_u64).for_each(|number| sender.send(number).expect("the task receives"));
    drop(sender);
    assert_eq!(sim.run_until(Duration::from_secs(1), task).flatten(), Some(499_500));
}

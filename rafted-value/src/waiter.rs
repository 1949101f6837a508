//! Who waits for an answer: a task on this node, or a caller on another.

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::error::{CommandError, GroupError, QueryError, Unknown};
use crate::id::MemberId;
use crate::status::GroupStatus;
use crate::transport::Reply;

/// The largest reply or answer of a user's value, in bytes. With what is put around it, it fits into one message of a
/// transport with default settings (4 MiB); a transport drops what does not fit, and its sender would try again.
const REPLY_BYTES_MAX: usize = (4 << 20) - 64;

/// Waits for one `T`; answered once or dropped.
pub(crate) enum Waiter<T> {
    /// A task on this node.
    Local(oneshot::Sender<T>),
    /// A caller on another node, who gets the value in postcard.
    Remote(Reply),
}

impl<T: Answer> Waiter<T> {
    /// A waiter and the receiving end on this node.
    pub(crate) fn local() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self::Local(sender), receiver)
    }

    /// Delivers the answer; a caller who has gone does not get it.
    ///
    /// What is too large for a message is refused to callers on this node too: whether a call works must not depend on
    /// where the leader happens to be.
    pub(crate) fn answer(self, value: T) {
        let value = value.within(REPLY_BYTES_MAX);
        match self {
            Self::Local(sender) => drop(sender.send(value)),
            Self::Remote(reply) => reply.send(crate::data::encode(&value)),
        }
    }
}

/// What can be answered.
pub(crate) trait Answer: Serialize {
    /// The answer itself, or the error that says that it is too large.
    fn within(self, limit: usize) -> Self;
}

impl Answer for Result<Bytes, CommandError> {
    fn within(self, limit: usize) -> Self {
        match self {
            Ok(reply) if reply.len() > limit => {
                let (bytes, limit_bytes) = (reply.len() as u64, limit as u64);
                Err(Unknown::ReplyTooLarge { bytes, limit_bytes }.into())
            }
            result => result,
        }
    }
}

impl Answer for Result<Bytes, QueryError> {
    fn within(self, limit: usize) -> Self {
        match self {
            Ok(answer) if answer.len() > limit => {
                Err(QueryError::AnswerTooLarge { bytes: answer.len() as u64, limit_bytes: limit as u64 })
            }
            result => result,
        }
    }
}

/// Always small.
impl Answer for Result<MemberId, GroupError> {
    fn within(self, _: usize) -> Self {
        self
    }
}

/// Never sent to another node.
impl Answer for Vec<GroupStatus> {
    fn within(self, _: usize) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(reply: Result<Bytes, CommandError>) -> Result<Bytes, CommandError> {
        let (waiter, mut receiver) = Waiter::local();
        waiter.answer(reply);
        receiver.try_recv().unwrap()
    }

    #[test]
    fn a_reply_that_fits_no_message_says_that_the_command_was_applied() {
        let largest = Bytes::from(vec![7; REPLY_BYTES_MAX]);
        assert_eq!(answered(Ok(largest.clone())), Ok(largest.clone()));
        let sent = crate::data::encode(&Result::<Bytes, CommandError>::Ok(largest));
        assert!(sent.len() <= 4 << 20, "{} bytes", sent.len());
        let error = answered(Ok(Bytes::from(vec![7; REPLY_BYTES_MAX + 1]))).unwrap_err();
        let text = "perhaps applied: the command was applied, but its reply of 4194241 bytes is over the limit of 4194240";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn an_answer_that_fits_no_message_is_an_error() {
        let (waiter, mut receiver) = Waiter::<Result<Bytes, QueryError>>::local();
        waiter.answer(Ok(Bytes::from(vec![7; REPLY_BYTES_MAX + 1])));
        let error = receiver.try_recv().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the answer of 4194241 bytes is over the limit of 4194240");
    }
}

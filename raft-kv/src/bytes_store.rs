//! Values that are bytes: the store for those who write no callback.

use bytes::Bytes;
use raft_fleet::CallOptions;
use raft_fleet::rafted_value::{CommandContext, Freshness, Refused, encode};
use serde::{Deserialize, Serialize};

use crate::error::{KvCommandError, KvError, KvNotApplied, KvQueryError, KvUnknown};
use crate::key::Key;
use crate::keyspace::{KeyspaceName, KeyspacePolicy};
use crate::kv::Kv;
use crate::list::{KeyPage, ListPosition};
use crate::value_type::{Answer, Done, KvTypes, ValuePerKey};

/// The value type of a [`BytesStore`]: values are bytes, sizes are their lengths, each command and query is a load of 1.
#[derive(Clone, Copy, Default, Debug)]
pub struct BytesValue;

/// What changes a value; append-only.
#[derive(Serialize, Deserialize)]
enum BytesCommand {
    Set(Bytes),
    Remove,
    /// Sets or removes the value if it is what is expected.
    CompareAndSet {
        expected: Option<Bytes>,
        value: Option<Bytes>,
    },
}

/// What a value answers; append-only.
#[derive(PartialEq, Eq, Debug, Serialize, Deserialize)]
enum BytesReply {
    /// Whether there was a value before.
    Done { existed: bool },
    /// The value is another one, and has not changed.
    Mismatch(Option<Bytes>),
}

impl BytesValue {
    /// The name under which [`KvTypes::with_bytes`] registers it.
    pub const NAME: &'static str = "bytes";
}

impl KvTypes {
    /// Adds the values of a [`BytesStore`].
    #[must_use]
    pub fn with_bytes(self) -> Self {
        self.with(BytesValue::NAME, BytesValue)
    }
}

impl ValuePerKey for BytesValue {
    type Value = Bytes;

    fn command(
        &self,
        _: &CommandContext,
        _: &[u8],
        value: &mut Option<Bytes>,
        command: &Bytes,
    ) -> Result<Done, Refused> {
        let command = postcard::from_bytes(command)
            .map_err(|error| Refused(format!("the command for bytes does not decode: {error}")))?;
        let existed = value.is_some();
        let reply = match command {
            BytesCommand::CompareAndSet { expected, .. } if *value != expected => {
                BytesReply::Mismatch(value.clone())
            }
            BytesCommand::Set(new) | BytesCommand::CompareAndSet { value: Some(new), .. } => {
                *value = Some(new);
                BytesReply::Done { existed }
            }
            BytesCommand::Remove | BytesCommand::CompareAndSet { value: None, .. } => {
                *value = None;
                BytesReply::Done { existed }
            }
        };
        let size = value.as_ref().map_or(0, Bytes::len) as u64;
        Ok(Done { reply: encode(&reply), load: 1, size })
    }

    fn copy(&self, _: &[u8], value: &Bytes) -> Option<Bytes> {
        Some(value.clone())
    }

    fn query(&self, _: &[u8], value: &Bytes, _: &Bytes) -> Result<Answer, Refused> {
        Ok(Answer { answer: value.clone(), load: 1 })
    }

    fn encode(&self, _: &[u8], value: &Bytes, out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }

    fn decode(&self, _: &[u8], bytes: &[u8]) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// One keyspace of bytes. Cheap to clone.
#[derive(Clone)]
pub struct BytesStore {
    kv: Kv,
    keyspace: KeyspaceName,
    options: CallOptions,
}

impl BytesStore {
    /// The store in a keyspace whose values are bytes; [`register`](BytesStore::register) makes sure that there is one.
    /// Each call is sent as `options` say, but for their `number`, which is one command's.
    pub fn new(kv: Kv, keyspace: KeyspaceName, options: CallOptions) -> Self {
        Self { kv, keyspace, options: CallOptions { number: None, ..options } }
    }

    /// The default policy of such a keyspace.
    pub fn policy() -> KeyspacePolicy {
        KeyspacePolicy::of(BytesValue::NAME)
    }

    /// Makes sure that the keyspace exists with this policy; see [`Kv::register_keyspace`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn register(&self, policy: &KeyspacePolicy) -> Result<(), KvError> {
        self.kv.register_keyspace(&self.keyspace, policy).await
    }

    /// The store below.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// The keyspace.
    pub fn keyspace(&self) -> &KeyspaceName {
        &self.keyspace
    }

    /// The newest value of a key, if it has one.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, KvQueryError> {
        found(self.kv.query(&self.keyspace, key, Freshness::Latest, b"", &self.options).await)
    }

    /// The newest values of many keys, in their order.
    pub async fn multi_get(&self, keys: &[Key]) -> Vec<Result<Option<Bytes>, KvQueryError>> {
        let answers = self.kv.query_many(&self.keyspace, keys, b"", &self.options).await;
        answers.into_iter().map(found).collect()
    }

    /// Sets a value; whether there was one before.
    ///
    /// # Errors
    ///
    /// Whether the value was surely not set, or perhaps.
    pub async fn set(&self, key: &Key, value: impl Into<Bytes>) -> Result<bool, KvCommandError> {
        let value = value.into();
        self.check(&value).await?;
        self.done(key, &BytesCommand::Set(value)).await
    }

    /// Removes a value; whether there was one.
    ///
    /// # Errors
    ///
    /// Whether the value was surely not removed, or perhaps.
    pub async fn del(&self, key: &Key) -> Result<bool, KvCommandError> {
        self.done(key, &BytesCommand::Remove).await
    }

    /// Sets a value (or removes it, with `None`) if it is what is expected, `None` for no value. The value that it is
    /// instead where it is another one; then nothing has changed. Both go in one command, and must fit into it together
    /// (`command_bytes_max` of the keyspace's groups).
    ///
    /// # Errors
    ///
    /// Whether the value was surely not set, or perhaps.
    pub async fn compare_and_set(
        &self,
        key: &Key,
        expected: Option<Bytes>,
        value: Option<Bytes>,
    ) -> Result<Result<(), Option<Bytes>>, KvCommandError> {
        if let Some(value) = &value {
            self.check(value).await?;
        }
        match self.command(key, &BytesCommand::CompareAndSet { expected, value }).await? {
            BytesReply::Done { .. } => Ok(Ok(())),
            BytesReply::Mismatch(present) => Ok(Err(present)),
        }
    }

    /// The keys that begin with `prefix`; see [`Kv::scan_keys`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn scan_keys(
        &self,
        prefix: &[u8],
        from: &ListPosition,
        keys_max: u32,
    ) -> Result<KeyPage, KvError> {
        self.kv.scan_keys(&self.keyspace, prefix, from, keys_max).await
    }

    /// Refuses a value that is too large before it is sent anywhere.
    async fn check(&self, value: &Bytes) -> Result<(), KvCommandError> {
        let (list, bytes) = (self.kv.list(), value.len() as u64);
        let limit_of = |policy: &KeyspacePolicy| policy.value_bytes_max;
        match list.over_limit(&self.keyspace, &self.options, bytes, limit_of).await? {
            Some(limit_bytes) => Err(KvNotApplied::ValueTooLarge { bytes, limit_bytes }.into()),
            None => Ok(()),
        }
    }

    async fn done(&self, key: &Key, command: &BytesCommand) -> Result<bool, KvCommandError> {
        match self.command(key, command).await? {
            BytesReply::Done { existed } => Ok(existed),
            other => Err(KvUnknown::Reply(format!("{other:?}")).into()),
        }
    }

    async fn command(&self, key: &Key, command: &BytesCommand) -> Result<BytesReply, KvCommandError> {
        let reply = self.kv.command(&self.keyspace, key, &encode(command), &self.options).await?;
        postcard::from_bytes(&reply).map_err(|error| KvUnknown::Reply(error.to_string()).into())
    }
}

fn found(answer: Result<Bytes, KvQueryError>) -> Result<Option<Bytes>, KvQueryError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(KvQueryError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(any(feature = "fuzzing", test))]
pub(crate) mod fuzzing {
    use super::{BytesCommand, BytesReply};

    /// What a value is told and answers.
    pub(crate) fn bytes(bytes: &[u8]) {
        let _ = postcard::from_bytes::<BytesCommand>(bytes);
        let _ = postcard::from_bytes::<BytesReply>(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &mut Option<Bytes>, command: &BytesCommand, reply: BytesReply, after: Option<&str>) {
        let context = CommandContext { now_ms: 1, index: 1, seed: 1 };
        let done = BytesValue.command(&context, b"k", value, &encode(command)).unwrap();
        assert_eq!(postcard::from_bytes::<BytesReply>(&done.reply).unwrap(), reply);
        assert_eq!(value.as_deref(), after.map(str::as_bytes));
        assert_eq!(done.size, after.map_or(0, str::len) as u64);
    }

    #[test]
    fn a_value_is_set_only_if_it_is_what_is_expected() {
        let mut value = None;
        let cas = |expected: Option<&'static str>, value: Option<&'static str>| {
            let bytes = |text: &'static str| Bytes::from(text);
            BytesCommand::CompareAndSet { expected: expected.map(bytes), value: value.map(bytes) }
        };
        check(&mut value, &cas(Some("a"), Some("b")), BytesReply::Mismatch(None), None);
        check(&mut value, &cas(None, Some("a")), BytesReply::Done { existed: false }, Some("a"));
        check(&mut value, &cas(None, Some("b")), BytesReply::Mismatch(Some("a".into())), Some("a"));
        check(&mut value, &cas(Some("a"), Some("b")), BytesReply::Done { existed: true }, Some("b"));
        check(&mut value, &BytesCommand::Set("c".into()), BytesReply::Done { existed: true }, Some("c"));
        check(&mut value, &cas(Some("c"), None), BytesReply::Done { existed: true }, None);
        check(&mut value, &BytesCommand::Remove, BytesReply::Done { existed: false }, None);
    }

    /// Old logs are read again.
    #[test]
    fn the_bytes_of_commands_never_change() {
        assert_eq!(encode(&BytesCommand::Set("v".into()))[..], [0, 1, b'v']);
        assert_eq!(encode(&BytesCommand::Remove)[..], [1]);
        let cas = BytesCommand::CompareAndSet { expected: Some("e".into()), value: None };
        assert_eq!(encode(&cas)[..], [2, 1, 1, b'e', 0]);
        assert_eq!(encode(&BytesReply::Done { existed: true })[..], [0, 1]);
        assert_eq!(encode(&BytesReply::Mismatch(None))[..], [1, 0]);
    }

    #[test]
    fn a_command_that_does_not_decode_is_refused() {
        let context = CommandContext { now_ms: 1, index: 1, seed: 1 };
        let refused = BytesValue.command(&context, b"k", &mut None, &Bytes::from("\u{9}"));
        assert!(refused.unwrap_err().0.contains("does not decode"));
    }
}

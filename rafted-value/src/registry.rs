//! The data types that a node knows, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::data::{Data, RawData, Typed, check_round_trip};
use crate::hooks::{LeaderHook, RawLeaderHook, TypedHook};

type Make = Arc<dyn Fn() -> Box<dyn RawData> + Send + Sync>;

/// The data types that a node can host, by name. Every node of a cluster should know the same; a node that lacks one
/// answers [`NoSuchData`](crate::GroupError::NoSuchData) and keeps the bytes.
///
/// Cheap to clone: every group has one.
#[derive(Clone, Default)]
pub struct Registry(Arc<Known>);

#[derive(Clone, Default)]
struct Known {
    types: BTreeMap<String, Make>,
    /// Why data types were left out.
    mistakes: BTreeMap<String, String>,
    hooks: BTreeMap<String, Arc<dyn RawLeaderHook>>,
}

impl Registry {
    /// A registry that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a [`Data`] type under its own name. A later registration replaces an earlier one of the same name.
    ///
    /// A type whose default value does not come back from its encoding as it was is left out, so that no group of it can
    /// be founded here: its groups would change, or end, at the next snapshot. [`validate`](Registry::validate) says so.
    #[must_use]
    pub fn with<D: Data>(mut self) -> Self {
        if let Err(reason) = check_round_trip(&D::default()) {
            let mistake = format!(
                "the default value of data type {:?} is lost in its encoding: {reason}; postcard knows no \
                 serde(flatten), untagged, tag or skip_serializing_if",
                D::NAME
            );
            Arc::make_mut(&mut self.0).mistakes.entry(D::NAME.to_owned()).or_insert(mistake);
            return self;
        }
        self.with_raw(D::NAME, || Box::new(Typed::<D>::default()))
    }

    /// Says what cannot work, if anything. A [`Host`](crate::Host) asks it when it is opened on a disk.
    ///
    /// # Errors
    ///
    /// A sentence that names the data type and what is wrong with it.
    pub fn validate(&self) -> Result<(), String> {
        self.0.mistakes.values().next().cloned().map_or(Ok(()), Err)
    }

    /// Why the type with this name was left out, if it was.
    pub(crate) fn mistake(&self, name: &str) -> Option<&String> {
        self.0.mistakes.get(name).filter(|_| !self.0.types.contains_key(name))
    }

    /// Adds a type in bytes: `make` gives a new empty value, the same on every node.
    #[must_use]
    pub fn with_raw(
        mut self,
        name: impl Into<String>,
        make: impl Fn() -> Box<dyn RawData> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.0).types.insert(name.into(), Arc::new(make));
        self
    }

    /// Adds what the leaders of groups of `D` do beside their values. A later hook replaces an earlier one.
    #[must_use]
    pub fn with_hook<D: Data>(self, hook: impl LeaderHook<D>) -> Self {
        self.with_raw_hook(D::NAME, TypedHook::<D, _>::new(hook))
    }

    /// The same for the type in bytes with this name.
    #[must_use]
    pub fn with_raw_hook(mut self, name: impl Into<String>, hook: impl RawLeaderHook) -> Self {
        Arc::make_mut(&mut self.0).hooks.insert(name.into(), Arc::new(hook));
        self
    }

    pub(crate) fn hook(&self, name: &str) -> Option<Arc<dyn RawLeaderHook>> {
        self.0.hooks.get(name).map(Arc::clone)
    }

    /// A new empty value of the type with this name.
    pub fn make(&self, name: &str) -> Option<Box<dyn RawData>> {
        self.0.types.get(name).map(|make| make())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.types.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::data::CommandContext;

    /// A value that leaves no trace where it is `None`.
    #[derive(Default, Serialize, Deserialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
    }

    /// A value that encodes, and does not decode.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        #[default]
        Nothing,
    }

    /// A value that encodes to other bytes each time it is decoded.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(from = "u64", into = "u64")]
    #[derive(Clone)]
    struct Growing(u64);

    impl From<u64> for Growing {
        fn from(value: u64) -> Self {
            Self(value + 1)
        }
    }

    impl From<Growing> for u64 {
        fn from(value: Growing) -> Self {
            value.0
        }
    }

    macro_rules! data {
        ($($name:ident)*) => {$(
            impl Data for $name {
                const NAME: &'static str = stringify!($name);
                type Command = ();
                type Reply = ();
                type Query = ();
                type Answer = ();

                fn command(&mut self, _: &CommandContext, (): ()) {}

                fn query(&self, (): ()) {}
            }
        )*};
    }

    /// A value that is whole.
    #[derive(Default, Serialize, Deserialize)]
    struct Whole(Option<u64>, Vec<String>);

    data!(Skipping Untagged Growing Whole);

    /// Such a type once changed its value at a failover, or ended its group at a snapshot.
    #[test]
    fn a_type_that_its_encoding_loses_is_left_out_and_named() {
        let check = |registry: Registry, name: &str, reason: &str| {
            let mistake = registry.validate().unwrap_err();
            let start = format!("the default value of data type {name:?} is lost in its encoding: {reason}");
            assert!(mistake.starts_with(&start), "{mistake}");
            assert!(registry.make(name).is_none());
            assert!(registry.make("Whole").is_some());
        };
        let whole = || Registry::new().with::<Whole>();
        assert_eq!(whole().validate(), Ok(()));
        check(whole().with::<Skipping>(), "Skipping", "it does not decode");
        check(whole().with::<Untagged>(), "Untagged", "it does not decode");
        check(whole().with::<Growing>(), "Growing", "it decodes to another value");
    }
}

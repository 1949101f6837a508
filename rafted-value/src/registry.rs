//! The data types that a node knows, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::data::{Data, RawData, Typed};
use crate::hooks::{LeaderHook, RawLeaderHook, TypedHook};

type Make = Arc<dyn Fn() -> Box<dyn RawData> + Send + Sync>;

/// The data types that a node can host, by name. Every node of a cluster should know the same; a node that lacks one
/// answers [`NoSuchData`](crate::GroupError::NoSuchData) and keeps the bytes.
#[derive(Clone, Default)]
pub struct Registry {
    types: BTreeMap<String, Make>,
    hooks: BTreeMap<String, Arc<dyn RawLeaderHook>>,
}

impl Registry {
    /// A registry that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a [`Data`] type under its own name. A later registration replaces an earlier one of the same name.
    #[must_use]
    pub fn with<D: Data>(self) -> Self {
        self.with_raw(D::NAME, || Box::new(Typed::<D>::default()))
    }

    /// Adds a type in bytes: `make` gives a new empty value, the same on every node.
    #[must_use]
    pub fn with_raw(
        mut self,
        name: impl Into<String>,
        make: impl Fn() -> Box<dyn RawData> + Send + Sync + 'static,
    ) -> Self {
        self.types.insert(name.into(), Arc::new(make));
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
        self.hooks.insert(name.into(), Arc::new(hook));
        self
    }

    pub(crate) fn hook(&self, name: &str) -> Option<Arc<dyn RawLeaderHook>> {
        self.hooks.get(name).map(Arc::clone)
    }

    /// A new empty value of the type with this name.
    pub fn make(&self, name: &str) -> Option<Box<dyn RawData>> {
        self.types.get(name).map(|make| make())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types.keys()).finish()
    }
}

//! What a partition is drawn between.

use std::sync::Arc;

use super::env::SimEnv;

/// A place in the network: an address, or a node, which stands for its address.
///
/// A partition is drawn between addresses, so that it survives the restart of a node.
pub trait Place {
    /// The address.
    fn address(&self) -> &str;
}

impl Place for str {
    fn address(&self) -> &str {
        self
    }
}

impl Place for String {
    fn address(&self) -> &str {
        self
    }
}

impl Place for SimEnv {
    fn address(&self) -> &str {
        SimEnv::address(self)
    }
}

impl<T: Place + ?Sized> Place for Arc<T> {
    fn address(&self) -> &str {
        (**self).address()
    }
}

impl<T: Place + ?Sized> Place for &T {
    fn address(&self) -> &str {
        (**self).address()
    }
}

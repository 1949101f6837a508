//! The settings of groups by their names, so that whoever adds a group need not know them.

use std::fmt;
use std::sync::Arc;

use rafted_value::GroupConfig;

use crate::group_name::GroupName;

/// Makes the settings of a group from its name; the defaults of [`GroupConfig`] for all, if nothing else is given.
#[derive(Clone, Default)]
pub struct GroupConfigMaker(Option<Arc<Make>>);

type Make = dyn Fn(&GroupName) -> GroupConfig + Send + Sync;

impl GroupConfigMaker {
    /// A maker that asks this function.
    pub fn new(make: impl Fn(&GroupName) -> GroupConfig + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(make)))
    }

    /// The settings of the group of this name.
    pub fn make(&self, name: &GroupName) -> GroupConfig {
        self.0.as_ref().map_or_else(GroupConfig::default, |make| make(name))
    }
}

/// Two makers are the same if one is a clone of the other, or neither was given a function.
impl PartialEq for GroupConfigMaker {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for GroupConfigMaker {}

impl fmt::Debug for GroupConfigMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupConfigMaker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_compared_by_what_they_were_given() {
        let maker = GroupConfigMaker::new(|_| GroupConfig::default());
        assert_eq!(maker, maker.clone());
        assert_ne!(maker, GroupConfigMaker::new(|_| GroupConfig::default()));
        assert_ne!(maker, GroupConfigMaker::default());
        assert_eq!(GroupConfigMaker::default(), GroupConfigMaker::default());
        let name = GroupName::new("g").unwrap();
        assert_eq!(GroupConfigMaker::default().make(&name), GroupConfig::default());
    }
}

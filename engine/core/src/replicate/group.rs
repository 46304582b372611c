//! Groups: the connections of one client to one service, as one session (rule 9).

/// See the module.
#[derive(Debug, Default)]
pub struct Group {}

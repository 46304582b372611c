//! Pools: the addresses they have, and which of them contradict each other.

//! A `Dire`: its pods, its service, its status.

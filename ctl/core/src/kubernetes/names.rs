//! The names of services in the engine.

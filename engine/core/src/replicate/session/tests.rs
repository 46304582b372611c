//! Sessions over legs made of queues, with servers whose output is a function of their input.

mod groups;
mod properties;
mod rules;
mod world;

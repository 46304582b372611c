//! The gRPC interface of the engine ([`engine_client`], [`engine_server`]) and of the daemon
//! ([`control_client`], [`control_server`]), generated from `proto/lockstep.proto`.

// The generated code has only the comments of the .proto file.
#![allow(missing_docs)]
// Nor is it ours how large a message is beside another.
#![allow(clippy::large_enum_variant)]
#![forbid(unsafe_code)]

tonic::include_proto!("lockstep.v1");

/// Where the engine listens when nothing else is said.
pub const ENGINE_SOCKET: &str = "/run/lockstep/engine.sock";
/// Where the daemon listens when nothing else is said.
pub const DAEMON_SOCKET: &str = "/run/lockstep/lockstepd.sock";

//! Generates the gRPC code. `protox` compiles the `.proto` file, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/lockstep.proto");
    let descriptors = protox::compile(["lockstep.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

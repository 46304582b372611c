//! Says which compiler built this: what instructions there are depends on it.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler to build scripts");
    let output = Command::new(rustc).arg("--version").output();
    let version = output.expect("cargo ran this compiler just now").stdout;
    let version = String::from_utf8_lossy(&version);
    println!("cargo::rustc-env=LOCKSTEP_RUSTC={}", version.trim());
    println!("cargo::rerun-if-changed=build.rs");
}

//! Compiles the XDP programs and writes their skeletons.
//!
//! libbpf's headers are the ones libbpf-sys carries; those of the kernel come from linux-libc-dev.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 6] = ["steer", "decap", "forward", "traffic", "offer", "arrivals"];
const HEADERS: [&str; 6] = [
    "packet.h",
    "steer.h",
    "maps.h",
    "carry.h",
    "decap.h",
    "traffic.h",
];

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    println!("cargo:rerun-if-env-changed=CLANG");
    for header in HEADERS {
        println!("cargo:rerun-if-changed={header}");
    }
    check_clang(&clang)?;
    for program in PROGRAMS {
        let source = here.join(format!("{program}.bpf.c"));
        println!("cargo:rerun-if-changed={}", source.display());
        SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(arguments())
            .build_and_generate(out.join(format!("{program}.skel.rs")))
            .map_err(|error| {
                format!(
                    "{program}.bpf.c does not compile: {error:#}\nIf a header is missing: \
                     apt-get install linux-libc-dev"
                )
            })?;
    }
    Ok(())
}

fn check_clang(clang: &OsString) -> Result<(), String> {
    let version = Command::new(clang).arg("--version").output();
    match version {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!(
            "{} does not run; the XDP programs need clang 14 or later, and libbpf needs libelf \
             and zlib: apt-get install clang libelf-dev zlib1g-dev pkg-config linux-libc-dev \
             (or set CLANG)",
            clang.display()
        )),
    }
}

fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-Wall", "-Wextra", "-Werror"].map(Into::into).into();
    // Debian keeps <asm/types.h> in the architecture's own directory, where clang does not look
    // when it compiles for BPF.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        arguments.push(format!("-I{multiarch}").into());
    }
    arguments
}

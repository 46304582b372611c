//! Instructions, counted by callgrind.
//!
//! A count has to be the same on every machine and in every checkout. Callgrind's own processor is the
//! same wherever there is AVX2, so what remains is the C library, which chooses among its `memcpy`s by
//! what the processor can do: it is told to take the plainest. What lies on the stack above `main` (the
//! environment, the program's path) shifts everything under it: it is made the same.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The C library's functions for any x86-64: what newer processors have, by its names and those of before
/// version 2.33; it passes over what it does not know.
const PLAIN_MEMCPY: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-SSSE3,\
     -ERMS,-FSRM,-AVX2_Usable,-AVX512F_Usable";

/// Instructions of this program with these arguments, inside of the functions whose names match one of
/// `inside`: entering one and leaving it begins and ends the count.
pub fn count(arguments: &[&str], inside: &[impl AsRef<str>]) -> Result<u64> {
    let program = std::env::current_exe().context("this program has no path")?;
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else {
        bail!("{} is no path of a program", program.display());
    };
    let toggles = inside
        .iter()
        .map(|name| format!("--toggle-collect={}", name.as_ref()));
    let output = Command::new(valgrind()?)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(toggles)
        .arg(Path::new(".").join(name))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("GLIBC_TUNABLES", PLAIN_MEMCPY)
        .output()
        .context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("callgrind failed ({}): {said}", output.status);
    }
    let collected = said.lines().find_map(collected);
    match collected.with_context(|| format!("callgrind wrote no count: {said}"))? {
        0 => bail!("callgrind found none of the functions to count inside of: has a name changed?"),
        instructions => Ok(instructions),
    }
}

/// The count in a line of what callgrind says: `==1234== Collected : 5678`.
fn collected(line: &str) -> Option<u64> {
    let (before, count) = line.split_once(':')?;
    let count = count.split_whitespace().next()?;
    before
        .trim_end()
        .ends_with(" Collected")
        .then(|| count.parse().ok())
        .flatten()
}

/// Which valgrind there is: `valgrind-3.19.0`.
pub fn version() -> Result<String> {
    let output = Command::new(valgrind()?).arg("--version").output();
    let output = output.context("cannot start valgrind")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Its path: without an environment it would not be found.
fn valgrind() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("valgrind"))
        .find(|file| file.is_file())
        .context("instructions are counted with valgrind, which is not installed: run make deps")
}

#[cfg(test)]
mod tests {
    use super::collected;

    #[test]
    fn the_count_is_found_among_what_callgrind_says() {
        let said = "==7== Callgrind, a call-graph generating cache profiler\n\
                    ==7== Events    : Ir\n\
                    ==7== Collected : 14438400\n\
                    ==7== I   refs:      14,438,401\n";
        assert_eq!(said.lines().find_map(collected), Some(14_438_400));
        assert_eq!("==7== Collected : much".lines().find_map(collected), None);
    }
}

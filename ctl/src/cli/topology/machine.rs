//! The machine that this program runs on, for `topology apply`.

use lockstep_topology::apply::Machine;
use std::process::Command;

/// See the module.
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn run(&mut self, program: &str, arguments: &[&str]) -> Result<String, String> {
        // Messages are shown as they are, and told from each other: not in the operator's language.
        let output = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .map_err(|error| format!("cannot run {program}: {error}; is it installed?"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let says = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = says
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        Err(match lines.is_empty() {
            true => format!("{program} failed ({})", output.status),
            false => lines.join("; "),
        })
    }

    fn read(&mut self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
    }

    fn names_in(&mut self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), String> {
        std::fs::write(path, text).map_err(|error| format!("cannot write {path}: {error}"))
    }
}

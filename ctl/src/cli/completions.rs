//! `lockstep completions SHELL`.

use super::output::Out;
use super::{Answer, Failure, Options};
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

/// Arguments of `lockstep completions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Prints the completions.
pub fn run(arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut Options::command(),
        "lockstep",
        &mut script,
    );
    out.raw(&String::from_utf8_lossy(&script))?;
    Ok(Answer::Yes)
}

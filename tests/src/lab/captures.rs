//! `lockstep capture` into a file, and what is in the file.

use super::balancer::Balancer;
use super::process::Process;
use super::wait::wait_until;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Of pcapng's section header, interface description and enhanced packet blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// A packet of a capture's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// What is kept of it, from the Ethernet header on.
    pub frame: Vec<u8>,
    /// What became of it.
    pub comment: String,
}

impl Capture {
    /// Starts one into a file of this name, and waits until every worker shows its packets.
    pub fn begin(balancer: &Balancer, name: &str, args: &[&str]) -> Result<Self> {
        let name = name.trim_start_matches('-');
        let file = balancer
            .services_file()
            .with_file_name(format!("{name}.pcapng"));
        let path = file.display().to_string();
        let args = [&["capture", "--write", &path], args].concat();
        let mut process = balancer.start(&format!("capture-{name}"), &args)?;
        wait_until("the capture has begun", SOON, || {
            process.must_run()?;
            // Its head is written when the workers have their orders.
            Ok(fs::metadata(&file).is_ok_and(|m| m.len() > 0).then_some(()))
        })?;
        Ok(Capture { process, file })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it as Ctrl-C does, and reads the file.
    pub fn end(&mut self) -> Result<Vec<Captured>> {
        self.process.signal(Signal::SIGINT)?;
        let status = self.process.wait(SOON)?;
        ensure!(status.success(), "{status}: {}", self.process.log());
        self.read()
    }

    /// Reads the file block by block (draft-ietf-opsawg-pcapng, section 3.1), which shares nothing with
    /// what wrote it.
    pub fn read(&self) -> Result<Vec<Captured>> {
        read(&fs::read(&self.file)?)
    }

    /// What tcpdump makes of the file, a line for each packet.
    pub fn by_tcpdump(&self) -> Result<Vec<String>> {
        tcpdump(&self.file)
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Captured>> {
    let word = |at: usize| -> Result<u32> {
        let word = bytes
            .get(at..at + 4)
            .with_context(|| format!("the file ends at {at}"))?;
        Ok(u32::from_le_bytes(word.try_into()?))
    };
    let (mut at, mut packets, mut interfaces) = (0, Vec::new(), 0);
    while at < bytes.len() {
        let (kind, length) = (word(at)?, word(at + 4)? as usize);
        ensure!(
            length >= 12 && length.is_multiple_of(4),
            "a block of {length} bytes"
        );
        ensure!(
            word(at + length - 4)? as usize == length,
            "a block that ends otherwise"
        );
        match kind {
            SECTION => ensure!(at == 0),
            INTERFACE => interfaces += 1,
            PACKET => {
                ensure!(word(at + 8)? < interfaces, "a packet of no interface");
                let captured = word(at + 20)? as usize;
                let frame = bytes[at + 28..at + 28 + captured].to_vec();
                let options = &bytes[at + 28 + captured.next_multiple_of(4)..at + length - 4];
                let comment = comment(options)?;
                packets.push(Captured { frame, comment });
            }
            other => bail!("a block of type {other}"),
        }
        at += length;
    }
    Ok(packets)
}

/// The first option is the comment: code 1, its length, its text.
fn comment(options: &[u8]) -> Result<String> {
    let [1, 0, low, high, text @ ..] = options else {
        bail!("no comment: {options:?}");
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    Ok(String::from_utf8(text[..length].to_vec())?)
}

fn tcpdump(file: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("tcpdump");
    let output = command.args(["-n", "-r"]).arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}

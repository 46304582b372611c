//! A pcapng file (draft-ietf-opsawg-pcapng): one interface description for each interface of the
//! engine, then the packets with their comments.

use crate::cli::Failure;
use lockstep_api::{CaptureStart, CapturedPacket};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// Timestamps count nanoseconds: a power of ten (section 4.2, `if_tsresol`).
const NANOSECONDS: u8 = 9;

/// A file that is being written.
pub struct Writer {
    to: PcapNgWriter<BufWriter<Box<dyn Write + Send>>>,
    name: String,
    /// Whether somebody reads along: then each packet goes out at once.
    is_live: bool,
}

impl Writer {
    /// A file with this name in place of any that is there, or standard output for `-`.
    pub fn create(path: &Path, start: &CaptureStart) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let is_live = name == "-";
        let to: Box<dyn Write + Send> = if is_live {
            Box::new(io::stdout())
        } else {
            let file = File::create(path);
            Box::new(file.map_err(|error| Failure::Usage(format!("cannot write {name}: {error}")))?)
        };
        let mut to = PcapNgWriter::new(BufWriter::new(to)).map_err(|e| failure(&name, e))?;
        for interface in &start.interfaces {
            let block = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: start.snap_length,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(interface)),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            };
            to.write_pcapng_block(block)
                .map_err(|e| failure(&name, e))?;
        }
        let mut writer = Writer { to, name, is_live };
        // A reader at the other end of a pipe wants to know at once that there is something.
        writer.flush()?;
        Ok(writer)
    }

    /// Writes a packet.
    pub fn packet(&mut self, packet: &CapturedPacket, comment: &str) -> Result<(), Failure> {
        let block = EnhancedPacketBlock {
            interface_id: packet.interface,
            timestamp: Duration::from_nanos(packet.time),
            original_len: packet.length,
            data: Cow::Borrowed(&packet.head),
            options: vec![EnhancedPacketOption::Comment(Cow::Borrowed(comment))],
        };
        let written = self.to.write_pcapng_block(block);
        written.map_err(|e| failure(&self.name, e))?;
        if self.is_live { self.flush() } else { Ok(()) }
    }

    /// Writes what is held back.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.to.get_mut().flush();
        flushed.map_err(|e| failure(&self.name, PcapError::IoError(e)))
    }
}

fn failure(name: &str, error: PcapError) -> Failure {
    match error {
        PcapError::IoError(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Failure::OutputClosed
        }
        PcapError::IoError(error) => Failure::Refused(format!("cannot write {name}: {error}")),
        error => Failure::Refused(format!("cannot write {name}: {error}")),
    }
}

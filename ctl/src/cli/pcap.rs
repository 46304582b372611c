//! Frames from capture files: pcap and pcapng, told apart by their first bytes.

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

/// The magic number of pcapng's section header, the same in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What was captured of it, from its Ethernet header on.
    pub bytes: Vec<u8>,
    /// Its length on the wire. More than `bytes` has when the capture cut it.
    pub length: u32,
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("cannot read {file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// It is no capture, or a damaged one.
    #[error("{file}: packet {number}: {reason}; only pcap and pcapng files can be read")]
    Form {
        /// The file.
        file: String,
        /// The packet, from 1.
        number: u64,
        /// What is wrong.
        reason: String,
    },
    /// Its frames do not begin with an Ethernet header.
    #[error(
        "{file}: link type {link:?}, where Ethernet is needed; capture on one interface, not on `any`"
    )]
    LinkType {
        /// The file.
        file: String,
        /// Its link type.
        link: DataLink,
    },
}

/// Gives every frame of a capture to `each`, in order, until it returns `false`.
///
/// # Errors
/// When the file is not a capture of Ethernet frames. Frames before the damage have been given.
pub fn read(path: &Path, mut each: impl FnMut(Frame) -> bool) -> Result<(), CaptureError> {
    let name = path.display().to_string();
    let io_error = |error| CaptureError::Io {
        file: name.clone(),
        error,
    };
    let mut file = File::open(path).map_err(io_error)?;
    let mut magic = Vec::new();
    (&mut file)
        .take(4)
        .read_to_end(&mut magic)
        .map_err(io_error)?;
    file.rewind().map_err(io_error)?;
    if magic == PCAPNG {
        read_pcapng(&name, BufReader::new(file), &mut each)
    } else {
        read_pcap(&name, BufReader::new(file), &mut each)
    }
}

fn damaged(file: &str, number: u64, reason: impl ToString) -> CaptureError {
    CaptureError::Form {
        file: file.to_owned(),
        number,
        reason: reason.to_string(),
    }
}

fn ethernet(file: &str, link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        link => Err(CaptureError::LinkType {
            file: file.to_owned(),
            link,
        }),
    }
}

fn read_pcap(
    name: &str,
    from: impl Read,
    each: &mut impl FnMut(Frame) -> bool,
) -> Result<(), CaptureError> {
    let mut number = 1;
    let mut reader = PcapReader::new(from).map_err(|e| damaged(name, number, e))?;
    ethernet(name, reader.header().datalink)?;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(|e| damaged(name, number, e))?;
        if !each(Frame {
            bytes: packet.data.into_owned(),
            length: packet.orig_len,
        }) {
            return Ok(());
        }
        number += 1;
    }
    Ok(())
}

fn read_pcapng(
    name: &str,
    from: impl Read,
    each: &mut impl FnMut(Frame) -> bool,
) -> Result<(), CaptureError> {
    let mut number = 1;
    let mut reader = PcapNgReader::new(from).map_err(|e| damaged(name, number, e))?;
    loop {
        let frame = match reader.next_block() {
            None => return Ok(()),
            Some(Err(error)) => return Err(damaged(name, number, error)),
            Some(Ok(Block::EnhancedPacket(packet))) => {
                let interface = packet.interface_id as usize;
                let frame = Frame {
                    bytes: packet.data.into_owned(),
                    length: packet.original_len,
                };
                Some((interface, frame))
            }
            // It belongs to the first interface (draft-ietf-opsawg-pcapng, section 4.4).
            Some(Ok(Block::SimplePacket(packet))) => {
                let frame = Frame {
                    bytes: packet.data.into_owned(),
                    length: packet.original_len,
                };
                Some((0, frame))
            }
            Some(Ok(_)) => None,
        };
        let Some((interface, frame)) = frame else {
            continue;
        };
        let interface = reader.interfaces().get(interface);
        let described =
            interface.ok_or_else(|| damaged(name, number, "its interface is unknown"))?;
        ethernet(name, described.linktype)?;
        if !each(frame) {
            return Ok(());
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use std::borrow::Cow;
    use std::time::Duration;

    fn pcap(datalink: DataLink) -> Vec<u8> {
        let header = PcapHeader {
            datalink,
            ..PcapHeader::default()
        };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for (length, bytes) in [(3, &[1, 2, 3][..]), (1_500, &[4, 5])] {
            writer
                .write_packet(&PcapPacket::new(Duration::ZERO, length, bytes))
                .unwrap();
        }
        writer.into_writer()
    }

    fn pcapng(linktype: DataLink) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        writer
            .write_pcapng_block(InterfaceDescriptionBlock {
                linktype,
                snaplen: 0,
                options: vec![],
            })
            .unwrap();
        for (original_len, data) in [(3, &[1, 2, 3][..]), (1_500, &[4, 5])] {
            writer
                .write_pcapng_block(EnhancedPacketBlock {
                    interface_id: 0,
                    timestamp: Duration::ZERO,
                    original_len,
                    data: Cow::Borrowed(data),
                    options: vec![],
                })
                .unwrap();
        }
        writer.into_inner()
    }

    fn frames(bytes: &[u8]) -> Result<Vec<Frame>, CaptureError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut frames = Vec::new();
        read(file.path(), |frame| {
            frames.push(frame);
            true
        })?;
        Ok(frames)
    }

    #[test]
    fn both_formats_are_read() {
        let expected = [
            Frame {
                bytes: vec![1, 2, 3],
                length: 3,
            },
            Frame {
                bytes: vec![4, 5],
                length: 1_500,
            },
        ];
        assert_eq!(frames(&pcap(DataLink::ETHERNET)).unwrap(), expected);
        assert_eq!(frames(&pcapng(DataLink::ETHERNET)).unwrap(), expected);
    }

    #[test]
    fn other_link_types_are_refused() {
        for capture in [pcap(DataLink::LINUX_SLL), pcapng(DataLink::LINUX_SLL)] {
            let error = frames(&capture).unwrap_err();
            assert!(matches!(error, CaptureError::LinkType { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let mut cut = pcap(DataLink::ETHERNET);
        cut.truncate(cut.len() - 1);
        for bytes in [&b"not a capture at all, but text"[..], b"", &PCAPNG, &cut] {
            let error = frames(bytes).unwrap_err();
            assert!(matches!(error, CaptureError::Form { .. }), "{error}");
        }
    }
}

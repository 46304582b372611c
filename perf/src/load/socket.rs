//! AF_XDP sockets on the queues of an interface, and the program that brings packets to them.

use super::place::{Carrier, within};
use anyhow::{Context, Result};
use clap::ValueEnum;
use lockstep_bpf::{AttachMode, ModeChoice, Traffic, Wanted};
use lockstep_xsk::{
    BindMode, Burst, FramePool, FrameSize, Mode, Port, PortOptions, Umem, UmemConfig,
};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Write, stderr};

/// How packets get between a driver and the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Binding {
    /// The best there is.
    #[default]
    Auto,
    /// Zero-copy, or an error.
    ZeroCopy,
    /// Copy, with a program in the driver.
    Copy,
    /// Copy, with a program in the network stack: works on every interface, slowest.
    Generic,
}

impl Binding {
    fn bind(self) -> BindMode {
        match self {
            Binding::Auto => BindMode::Auto,
            Binding::ZeroCopy => BindMode::ZeroCopy,
            Binding::Copy => BindMode::Copy,
            Binding::Generic => BindMode::Generic,
        }
    }

    fn attach(self) -> ModeChoice {
        match self {
            Binding::Auto => ModeChoice::Auto,
            Binding::ZeroCopy | Binding::Copy => ModeChoice::Native,
            Binding::Generic => ModeChoice::Generic,
        }
    }
}

/// Bytes of packets that may be on the way: as many as fit the rings, with what the kernel has around
/// each of them.
const IN_FLIGHT: usize = 64 << 20;

/// One queue's socket, with packet memory of its own.
#[derive(Debug)]
pub struct Socket {
    burst: Burst,
    /// For its counters and for waiting.
    pub port: Port,
    pool: FramePool,
    _umem: Umem,
}

impl Socket {
    fn open(interface: &str, queue: u32, options: &PortOptions) -> Result<Self> {
        let config = UmemConfig {
            frame_size: FrameSize::Bytes4096,
            frames: 8_192,
            ..UmemConfig::default()
        };
        let (umem, mut pool) = Umem::new(&config)?;
        let port = Port::bind(&umem, &mut pool, interface, queue, options)?;
        // An skb belongs to the socket that sent it until somebody has taken it. With the usual buffer
        // some dozens of them on the tested host's queues keep the generator from sending more: then it
        // is not offered what it is to be offered, and loses nothing.
        setsockopt(&port.fd(), sockopt::SndBufForce, &IN_FLIGHT)
            .context("cannot have more packets on the way")?;
        Ok(Socket {
            burst: Burst::new(&umem),
            port,
            pool,
            _umem: umem,
        })
    }

    /// Gives what is staged to the kernel, and takes back what was sent.
    #[inline]
    pub fn flush(&mut self) -> Result<()> {
        self.port.flush()?;
        self.port.reap(&mut self.pool);
        Ok(())
    }

    /// Takes in what has come, a burst at most, and returns how many frames that were.
    #[inline]
    pub fn receive(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        self.exchange(|frame, _| take(frame))
    }

    /// As [`Socket::receive`], and `take` may send something for each.
    #[inline]
    pub fn exchange(&mut self, mut take: impl FnMut(&[u8], &mut Sending<'_>)) -> usize {
        let Socket {
            burst, port, pool, ..
        } = self;
        let count = port.receive(burst);
        if count == 0 {
            return 0;
        }
        for frame in burst.iter_mut() {
            take(frame, &mut Sending { port, pool });
        }
        burst.drain().for_each(|frame| pool.put(frame));
        port.refill(pool);
        count
    }

    /// To send without receiving.
    pub fn sending(&mut self) -> Sending<'_> {
        Sending {
            port: &mut self.port,
            pool: &mut self.pool,
        }
    }
}

/// The sending half of a socket.
#[derive(Debug)]
pub struct Sending<'a> {
    port: &'a mut Port,
    pool: &'a mut FramePool,
}

impl Sending<'_> {
    /// Stages a frame that `write` fills, which is given as many bytes as there are and says how many
    /// it took. Where there is no room, it makes some first; whether there was room even then.
    #[inline]
    pub fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool> {
        if !self.port.has_room() || self.pool.is_empty() {
            self.port.flush()?;
            self.port.reap(self.pool);
        }
        let Some(mut frame) = self.pool.take() else {
            return Ok(false);
        };
        let capacity = frame.capacity();
        // Its own capacity always fits, and what was written is within it.
        let _ = frame.set_len(capacity);
        let length = write(frame.bytes_mut());
        let _ = frame.set_len(length.min(capacity));
        match self.port.send(frame) {
            Ok(()) => Ok(true),
            Err(frame) => {
                self.pool.put(frame);
                Ok(false)
            }
        }
    }
}

/// Sockets on queues of one interface. The program is taken off when this goes.
#[derive(Debug)]
pub struct Line {
    /// One for each queue.
    pub sockets: Vec<Socket>,
    program: Option<Traffic>,
    netns: Option<String>,
    interface: String,
}

impl Line {
    /// Opens sockets that get what is `wanted`; where that is nothing, they only send.
    pub fn open(
        netns: Option<&str>,
        interface: &str,
        queues: &[u32],
        wanted: Option<&Wanted>,
        binding: Binding,
    ) -> Result<Self> {
        let mut line = Line {
            sockets: Vec::new(),
            program: None,
            netns: netns.map(str::to_owned),
            interface: interface.to_owned(),
        };
        within(netns, || {
            if let Some(wanted) = wanted {
                line.attach(interface, wanted, binding)?;
            }
            line.bind(interface, queues, binding)?;
            // Drivers send without a copy only where a program is.
            let zero_copy = |socket: &Socket| socket.port.mode() == Mode::ZeroCopy;
            if line.program.is_none() && line.sockets.iter().any(zero_copy) {
                line.attach(interface, &Wanted::default(), binding)?;
            }
            Ok(())
        })?;
        Ok(line)
    }

    fn attach(&mut self, interface: &str, wanted: &Wanted, binding: Binding) -> Result<()> {
        let program = Traffic::attach(interface, wanted, binding.attach());
        self.program = Some(program.context("cannot attach the generator's XDP program")?);
        Ok(())
    }

    fn bind(&mut self, interface: &str, queues: &[u32], binding: Binding) -> Result<()> {
        let native = self.program.as_ref().map(Traffic::mode);
        let options = PortOptions {
            mode: binding.bind(),
            program_native: native.map_or(binding != Binding::Generic, |mode| {
                mode == AttachMode::Native
            }),
            ..PortOptions::default()
        };
        for &queue in queues {
            let socket = Socket::open(interface, queue, &options)?;
            if let Some(program) = &self.program {
                program.set_socket(queue, socket.port.fd())?;
            }
            self.sockets.push(socket);
        }
        Ok(())
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// How the interface's link is.
    pub fn carrier(&self) -> Result<Carrier> {
        within(self.netns.as_deref(), || Ok(Carrier::of(&self.interface)))
    }

    /// How its sockets are bound.
    pub fn mode(&self) -> Option<Mode> {
        self.sockets.first().map(|socket| socket.port.mode())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(program) = self.program.take() else {
            return;
        };
        // Without its sockets it passes everything on, should this fail.
        let detached = within(self.netns.as_deref(), || Ok(program.detach()?));
        if let Err(error) = detached {
            // Whoever does not hear it sees it in `ip link`.
            let _ = writeln!(stderr(), "the generator's XDP program stays: {error:#}");
        }
    }
}

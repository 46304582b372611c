//! The XDP programs of all interfaces, as one.

use crate::workers::WorkerHandle;
use lockstep_bpf::{BpfError, Destination, Room, Steer, SteerCounters};
use lockstep_plan::{Protocol, Vip};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Destinations = BTreeMap<Destination, Room>;

/// The programs, and what they were last told.
pub struct Steering {
    inner: Mutex<Inner>,
    engine_addresses: Vec<IpAddr>,
}

struct Inner {
    steers: Vec<Steer>,
    told: Destinations,
}

impl Steering {
    /// Steering by these programs, in the order of the interfaces in `topology.toml`.
    pub fn new(steers: Vec<Steer>, engine_addresses: Vec<IpAddr>) -> Self {
        let inner = Inner {
            steers,
            told: Destinations::new(),
        };
        Steering {
            inner: Mutex::new(inner),
            engine_addresses,
        }
    }

    /// Says to every program that the agent is alive.
    pub fn beat(&self) {
        for steer in &self.lock().steers {
            if let Err(error) = steer.beat() {
                tracing::error!(%error, "no heartbeat; the kernel gets the packets");
            }
        }
    }

    /// Lets packets of a worker's queues go to its sockets.
    pub fn open(&self, worker: &WorkerHandle) -> Result<(), BpfError> {
        let inner = self.lock();
        for socket in &worker.sockets {
            inner.steers[socket.interface].set_socket(socket.queue, socket.fd.as_fd())?;
        }
        Ok(())
    }

    /// Lets packets of a worker's queues go to the kernel.
    pub fn close(&self, worker: &WorkerHandle) {
        let inner = self.lock();
        for socket in &worker.sockets {
            if let Err(error) = inner.steers[socket.interface].clear_socket(socket.queue) {
                tracing::error!(%error, "a socket stays in the XDP program's map");
            }
        }
    }

    /// The same for all workers.
    pub fn close_all<'a>(&self, workers: impl Iterator<Item = &'a WorkerHandle>) {
        workers.for_each(|worker| self.close(worker));
    }

    /// Stops steering what is not in `wanted`, and changes nothing else.
    pub fn narrow(&self, wanted: impl Iterator<Item = (Vip, u16)>) -> Result<(), BpfError> {
        let wanted = self.destinations(wanted);
        let mut inner = self.lock();
        let kept: Destinations = inner
            .told
            .iter()
            .filter(|(destination, _)| wanted.contains_key(*destination))
            .map(|(destination, room)| (*destination, *room))
            .collect();
        inner.tell(kept)
    }

    /// Steers exactly what is in `wanted`, besides the engine's addresses.
    pub fn widen(&self, wanted: impl Iterator<Item = (Vip, u16)>) -> Result<(), BpfError> {
        let wanted = self.destinations(wanted);
        self.lock().tell(wanted)
    }

    /// What each program counted, in the order of the interfaces.
    pub fn counters(&self) -> Vec<SteerCounters> {
        let inner = self.lock();
        inner
            .steers
            .iter()
            .map(|s| s.counters().unwrap_or_default())
            .collect()
    }

    /// Takes every program off.
    pub fn detach(&self) {
        for steer in std::mem::take(&mut self.lock().steers) {
            if let Err(error) = steer.detach() {
                tracing::warn!(%error, "an XDP program stays; it passes everything");
            }
        }
    }

    /// A VIP has two entries, its own and its address's for packets without readable ports; an
    /// engine address has one for each protocol and that one.
    fn destinations(&self, vips: impl Iterator<Item = (Vip, u16)>) -> Destinations {
        let mut destinations = Destinations::new();
        for &address in &self.engine_addresses {
            for protocol in [
                Some(Protocol::Tcp.number()),
                Some(Protocol::Udp.number()),
                None,
            ] {
                destinations.insert(
                    Destination {
                        address,
                        port: 0,
                        protocol,
                    },
                    Room::NONE,
                );
            }
        }
        for (vip, room) in vips {
            let address = vip.address();
            // Rooms are lengths of headers: none is out of the range that a room may have.
            let room = Room::new(room).unwrap_or(Room::NONE);
            let protocol = Some(vip.protocol().number());
            destinations.insert(
                Destination {
                    address,
                    port: vip.port(),
                    protocol,
                },
                room,
            );
            destinations.insert(
                Destination {
                    address,
                    port: 0,
                    protocol: None,
                },
                Room::NONE,
            );
        }
        destinations
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, wanted: Destinations) -> Result<(), BpfError> {
        if wanted == self.told {
            return Ok(());
        }
        for steer in &mut self.steers {
            steer.set_destinations(&wanted)?;
        }
        self.told = wanted;
        Ok(())
    }
}

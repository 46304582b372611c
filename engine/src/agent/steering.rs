//! The XDP programs of all interfaces, as one.

mod carry;
mod destinations;

use crate::workers::WorkerHandle;
use destinations::{Destinations, destinations, sources};
use lockstep_bpf::{BpfError, CarriedFlow, Carrier, Numbers, Steer, SteerCounters, Tunnel};
use lockstep_core::Tables;
use lockstep_core::tables::BackendRef;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The programs, and what they were last told.
pub struct Steering {
    inner: Mutex<Inner>,
    /// Locked by itself, since it waits for the kernel and the heartbeat must not. `None` without
    /// any program, or once they are off.
    carrier: Mutex<Option<Carrier>>,
    engine_addresses: Vec<IpAddr>,
    /// The interfaces' numbers in the kernel.
    interfaces: Vec<u32>,
}

struct Inner {
    steers: Vec<Steer>,
    /// `None`: nothing yet. A predecessor's destinations may be in force.
    told: Option<Destinations>,
    /// Where answers come from.
    sources: Destinations,
    /// The services that the programs can carry.
    numbers: Numbers,
    /// Whether sockets get packets: once a snapshot is in force.
    open: bool,
}

impl Steering {
    /// Steering by these programs, in the order of the interfaces in `topology.toml`.
    pub fn new(steers: Vec<Steer>, engine_addresses: Vec<IpAddr>) -> Result<Self, BpfError> {
        let carrier = steers.first().map(Steer::carrier).transpose()?;
        let interfaces = steers.iter().map(Steer::interface_number).collect();
        let inner = Inner {
            steers,
            told: None,
            sources: Destinations::new(),
            numbers: Numbers::new(),
            open: false,
        };
        Ok(Steering {
            inner: Mutex::new(inner),
            carrier: Mutex::new(carrier),
            engine_addresses,
            interfaces,
        })
    }

    /// Says to every program that the agent is alive.
    pub fn beat(&self) {
        for steer in &self.lock().steers {
            if let Err(error) = steer.beat() {
                tracing::error!(%error, "no heartbeat; the kernel gets the packets");
            }
        }
    }

    /// Lets packets of these workers' queues go to their sockets, from the first snapshot on. Until
    /// then what a predecessor left carries them, or the kernel has them.
    pub fn open_all<'a>(
        &self,
        workers: impl Iterator<Item = &'a WorkerHandle>,
    ) -> Result<(), BpfError> {
        let mut inner = self.lock();
        if inner.open {
            return Ok(());
        }
        for worker in workers {
            inner.set_sockets(worker)?;
        }
        inner.open = true;
        Ok(())
    }

    /// The same for a worker that is back; before the first snapshot it waits for the others.
    pub fn open(&self, worker: &WorkerHandle) -> Result<(), BpfError> {
        let inner = self.lock();
        if inner.open {
            inner.set_sockets(worker)?;
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

    /// Stops steering what is not in `tables`, and changes nothing else.
    pub fn narrow(&self, tables: &Tables) -> Result<(), BpfError> {
        let mut inner = self.lock();
        let Some(told) = &inner.told else {
            // No socket is there yet, so no worker meets what it does not expect.
            return Ok(());
        };
        let wanted = destinations(&self.engine_addresses, tables, &inner.numbers);
        let mut kept = told.clone();
        kept.retain(|destination, _| wanted.contains_key(destination));
        inner.tell(kept)
    }

    /// Steers exactly what is in `tables`, besides the engine's addresses.
    pub fn widen(&self, tables: &Tables) -> Result<(), BpfError> {
        let mut inner = self.lock();
        let wanted = destinations(&self.engine_addresses, tables, &inner.numbers);
        let sources = sources(tables);
        inner.tell(wanted)?;
        if inner.sources != sources {
            for steer in &mut inner.steers {
                steer.set_sources(&sources)?;
            }
            inner.sources = sources;
        }
        inner.look_at_locals()
    }

    /// Tells the programs which addresses are this host's own, where they ask for that.
    pub fn keep_locals(&self) {
        if let Err(error) = self.lock().look_at_locals() {
            tracing::warn!(%error, "answers to this host's own addresses may go to the engine");
        }
    }

    /// Gives the programs what they need to carry tunnelled services without the engine. May take
    /// some milliseconds.
    pub fn carry(&self, tables: &Tables) -> Result<(), BpfError> {
        let mut carrier = self.lock_carrier();
        let Some(carrier) = carrier.as_mut() else {
            return Ok(());
        };
        let services = carry::services(tables, &self.interfaces);
        let numbers = carrier.set(&services)?;
        if numbers.len() < services.len() {
            let others = services.len() - numbers.len();
            tracing::warn!(
                others,
                "not every service fits the XDP program's tables; without the engine, packets of \
                 the others go to the kernel"
            );
        }
        self.lock().numbers = numbers;
        Ok(())
    }

    /// Takes back what destinations name no more: after [`Steering::widen`].
    pub fn retire(&self) -> Result<(), BpfError> {
        self.lock_carrier().as_mut().map_or(Ok(()), Carrier::retire)
    }

    /// Makes `flows` the ones that the programs carry to another backend than their hash says.
    pub fn pin(&self, flows: &BTreeMap<CarriedFlow, Tunnel>) -> Result<(), BpfError> {
        let mut carrier = self.lock_carrier();
        let Some(carrier) = carrier.as_mut() else {
            return Ok(());
        };
        let pinned = carrier.pin(flows)?;
        if pinned < flows.len() {
            let others = flows.len() - pinned;
            tracing::warn!(
                others,
                "flows of draining backends are carried by their hash"
            );
        }
        Ok(())
    }

    /// The way into the tunnel of a backend.
    pub fn tunnel(&self, tables: &Tables, backend: BackendRef) -> Option<Tunnel> {
        carry::tunnel(tables, backend, &self.interfaces).map(|(tunnel, _)| tunnel)
    }

    /// Lets packets of all queues be carried, until [`Steering::open_all`].
    pub fn suspend<'a>(&self, workers: impl Iterator<Item = &'a WorkerHandle>) {
        self.lock().open = false;
        self.close_all(workers);
    }

    /// Lets go of the programs, which stay as they are.
    pub fn leave(&self) {
        self.lock().steers.clear();
        *self.lock_carrier() = None;
    }

    /// Gives the programs the ways to backends as they are now.
    pub fn reroute(&self, tables: &Tables) -> Result<(), BpfError> {
        let mut carrier = self.lock_carrier();
        let ways = carry::tunnels(tables, &self.interfaces);
        carrier
            .as_mut()
            .map_or(Ok(()), |carrier| carrier.reroute(ways))
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

    /// Takes off the programs that this engine brought: those that were there before carry on.
    pub fn give_up(&self) {
        give_up(std::mem::take(&mut self.lock().steers));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_carrier(&self) -> MutexGuard<'_, Option<Carrier>> {
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes programs off of an engine that does not start, so that it leaves the interfaces as it
/// found them: where it took over a predecessor's maps, the program carries on by those.
pub fn give_up(steers: Vec<Steer>) {
    for steer in steers.into_iter().filter(|s| !s.has_taken_over()) {
        if let Err(error) = steer.detach() {
            tracing::warn!("an XDP program stays; it passes everything: {error:#}");
        }
    }
}

impl Inner {
    fn set_sockets(&self, worker: &WorkerHandle) -> Result<(), BpfError> {
        for socket in &worker.sockets {
            // None once the programs are off, or another engine's.
            if let Some(steer) = self.steers.get(socket.interface) {
                steer.set_socket(socket.queue, socket.fd.as_fd())?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, wanted: Destinations) -> Result<(), BpfError> {
        if self.told.as_ref() == Some(&wanted) {
            return Ok(());
        }
        for steer in &mut self.steers {
            steer.set_destinations(&wanted)?;
        }
        self.told = Some(wanted);
        Ok(())
    }

    fn look_at_locals(&mut self) -> Result<(), BpfError> {
        if self.sources.is_empty() {
            return Ok(());
        }
        let addresses = super::own_addresses();
        for steer in &mut self.steers {
            steer.set_locals(&addresses)?;
        }
        Ok(())
    }
}

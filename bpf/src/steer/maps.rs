//! The program's maps: pinned, found again, and shared.

use crate::BpfError;
use crate::abi::ABI;
use crate::pins::Pins;
use crate::skeleton::steer::{OpenSteerMaps, SteerMaps};
use libbpf_rs::{MapCore, MapHandle};
use std::os::fd::AsFd;

/// Every map of a program.
pub(super) struct Maps {
    destinations: MapHandle,
    ranges: MapHandle,
    sources: MapHandle,
    locals: MapHandle,
    config_map: MapHandle,
    xsks: MapHandle,
    heartbeat: MapHandle,
    counters: MapHandle,
    /// The last three are shared by all programs of an engine.
    pub(super) rings: MapHandle,
    pub(super) backends: MapHandle,
    pub(super) pinned: MapHandle,
}

/// The pin of the map that says of which form all of them are.
fn config_pin() -> String {
    format!("config{ABI}")
}

impl Maps {
    /// Those of a program.
    pub(super) fn of(maps: &SteerMaps<'_>) -> Result<Self, BpfError> {
        fn handle(map: &libbpf_rs::MapMut<'_>) -> Result<MapHandle, BpfError> {
            MapHandle::try_from(map).map_err(|source| BpfError::Map {
                map: "of the program",
                doing: "take another file descriptor of it",
                source,
            })
        }
        Ok(Maps {
            destinations: handle(&maps.destinations)?,
            ranges: handle(&maps.ranges)?,
            sources: handle(&maps.sources)?,
            locals: handle(&maps.locals)?,
            config_map: handle(&maps.config_map)?,
            xsks: handle(&maps.xsks)?,
            heartbeat: handle(&maps.heartbeat)?,
            counters: handle(&maps.counters)?,
            rings: handle(&maps.rings)?,
            backends: handle(&maps.backends)?,
            pinned: handle(&maps.pinned)?,
        })
    }

    /// What a predecessor left, if it is whole and of today's form.
    pub(super) fn left(pins: &Pins) -> Option<Self> {
        Some(Maps {
            config_map: pins.map(&config_pin())?,
            destinations: pins.map("destinations")?,
            ranges: pins.map("ranges")?,
            sources: pins.map("sources")?,
            locals: pins.map("locals")?,
            xsks: pins.map("xsks")?,
            heartbeat: pins.map("heartbeat")?,
            counters: pins.map("counters")?,
            rings: pins.map("rings")?,
            backends: pins.map("backends")?,
            pinned: pins.map("pinned")?,
        })
    }

    /// Whether they share what they have to with the program beside.
    pub(super) fn fits(&self, beside: Option<&Maps>) -> bool {
        let Some(beside) = beside else {
            return true;
        };
        let same = |a: &MapHandle, b: &MapHandle| match (a.info(), b.info()) {
            (Ok(a), Ok(b)) => a.info.id == b.info.id,
            _ => false,
        };
        same(&self.rings, &beside.rings)
            && same(&self.backends, &beside.backends)
            && same(&self.pinned, &beside.pinned)
    }

    /// Makes all of them those of a program that is not loaded yet.
    pub(super) fn put_into(&self, maps: &mut OpenSteerMaps<'_>) -> libbpf_rs::Result<()> {
        maps.destinations.reuse_fd(self.destinations.as_fd())?;
        maps.ranges.reuse_fd(self.ranges.as_fd())?;
        maps.sources.reuse_fd(self.sources.as_fd())?;
        maps.locals.reuse_fd(self.locals.as_fd())?;
        maps.config_map.reuse_fd(self.config_map.as_fd())?;
        maps.xsks.reuse_fd(self.xsks.as_fd())?;
        maps.heartbeat.reuse_fd(self.heartbeat.as_fd())?;
        maps.counters.reuse_fd(self.counters.as_fd())?;
        self.share_with(maps)
    }

    /// Makes the shared ones those of a program that is not loaded yet.
    pub(super) fn share_with(&self, maps: &mut OpenSteerMaps<'_>) -> libbpf_rs::Result<()> {
        maps.rings.reuse_fd(self.rings.as_fd())?;
        maps.backends.reuse_fd(self.backends.as_fd())?;
        maps.pinned.reuse_fd(self.pinned.as_fd())
    }
}

/// Pins the maps of a program; the one that says that all are there comes last.
pub(super) fn pin(maps: &mut SteerMaps<'_>, pins: &Pins) -> Result<(), BpfError> {
    pins.pin_map(&mut maps.destinations, "destinations")?;
    pins.pin_map(&mut maps.ranges, "ranges")?;
    pins.pin_map(&mut maps.sources, "sources")?;
    pins.pin_map(&mut maps.locals, "locals")?;
    pins.pin_map(&mut maps.xsks, "xsks")?;
    pins.pin_map(&mut maps.heartbeat, "heartbeat")?;
    pins.pin_map(&mut maps.counters, "counters")?;
    pins.pin_map(&mut maps.rings, "rings")?;
    pins.pin_map(&mut maps.backends, "backends")?;
    pins.pin_map(&mut maps.pinned, "pinned")?;
    pins.pin_map(&mut maps.config_map, &config_pin())
}

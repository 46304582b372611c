//! A map that only we write to, and what we wrote there: only differences are written.

use crate::BpfError;
use libbpf_rs::{MapCore, MapFlags};
use std::collections::BTreeMap;

/// What is in a map, as keys and values.
#[derive(Debug)]
pub(crate) struct Mirror<const K: usize, const V: usize> {
    name: &'static str,
    /// The most entries.
    limit: usize,
    entries: BTreeMap<[u8; K], [u8; V]>,
}

impl<const K: usize, const V: usize> Mirror<K, V> {
    /// Of a map that is empty.
    pub(crate) fn new(name: &'static str, limit: usize) -> Self {
        Mirror {
            name,
            limit,
            entries: BTreeMap::new(),
        }
    }

    /// Reads what somebody else left in the map.
    pub(crate) fn read(&mut self, map: &impl MapCore) -> Result<(), BpfError> {
        self.entries.clear();
        for key in map.keys() {
            let value = map
                .lookup(&key, MapFlags::ANY)
                .map_err(self.failed("read an entry"))?;
            let value = value.and_then(|value| value.try_into().ok());
            if let (Ok(key), Some(value)) = (key.try_into(), value) {
                self.entries.insert(key, value);
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether `wanted` fits beside what goes away only afterwards.
    pub(crate) fn check(&self, wanted: &BTreeMap<[u8; K], [u8; V]>) -> Result<(), BpfError> {
        let gone = |key: &&[u8; K]| !wanted.contains_key(*key);
        let count = wanted.len() + self.entries.keys().filter(gone).count();
        if count > self.limit {
            return Err(BpfError::TooMany {
                map: self.name,
                count,
                limit: self.limit,
            });
        }
        Ok(())
    }

    /// Writes what is new or different in `wanted`.
    pub(crate) fn add(
        &mut self,
        map: &impl MapCore,
        wanted: &BTreeMap<[u8; K], [u8; V]>,
    ) -> Result<(), BpfError> {
        for (key, value) in wanted {
            if self.entries.get(key) != Some(value) {
                map.update(key, value, MapFlags::ANY)
                    .map_err(self.failed("write an entry"))?;
                self.entries.insert(*key, *value);
            }
        }
        Ok(())
    }

    /// Removes what is not in `wanted`.
    pub(crate) fn remove(
        &mut self,
        map: &impl MapCore,
        wanted: &BTreeMap<[u8; K], [u8; V]>,
    ) -> Result<(), BpfError> {
        let gone = |key: &&[u8; K]| !wanted.contains_key(*key);
        let gone: Vec<[u8; K]> = self.entries.keys().filter(gone).copied().collect();
        for key in gone {
            map.delete(&key).map_err(self.failed("remove an entry"))?;
            self.entries.remove(&key);
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(libbpf_rs::Error) -> BpfError + use<K, V> {
        let map = self.name;
        move |source| BpfError::Map { map, doing, source }
    }
}

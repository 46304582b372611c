//! Groups by client and service, for services that group connections.

use crate::replicate::group::Group;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use hashbrown::HashTable;
use lockstep_plan::ServiceName;
use siphasher::sip::SipHasher13;

/// A group's place, as its sessions keep it.
pub(super) type GroupPlace = u32;

struct Entry {
    client: IpAddr,
    service: ServiceName,
    group: Box<Group>,
    /// Sessions that have its place, whether they have joined it yet or not.
    sessions: u32,
    /// Those of them whose client has not acknowledged the SYN-ACK.
    half_open: u32,
}

/// The groups of a worker: at most as many as sessions.
pub(super) struct Groups {
    entries: Vec<Option<Entry>>,
    free: Vec<GroupPlace>,
    index: HashTable<GroupPlace>,
    key: [u64; 2],
}

impl Groups {
    pub(super) fn new(key: [u64; 2]) -> Self {
        Groups {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            key,
        }
    }

    /// The group of a client's connections to a service, for one more session: it has to be
    /// given back by [`Groups::release`].
    pub(super) fn of(&mut self, client: IpAddr, service: &ServiceName) -> GroupPlace {
        let hash = self.hash(client, service);
        if let Some(place) = self.find(client, service) {
            if let Some(entry) = &mut self.entries[place as usize] {
                entry.sessions += 1;
            }
            return place;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as GroupPlace - 1
        });
        self.entries[place as usize] = Some(Entry {
            client,
            service: service.clone(),
            group: Box::new(Group::new()),
            sessions: 1,
            half_open: 0,
        });
        let (entries, key) = (&self.entries, self.key);
        self.index.insert_unique(hash, place, |&place| {
            let entry = entries[place as usize].as_ref();
            entry.map_or(0, |e| hash_of(key, e.client, &e.service))
        });
        place
    }

    fn find(&self, client: IpAddr, service: &ServiceName) -> Option<GroupPlace> {
        let is_it = |place: &GroupPlace| {
            let entry = self.entries[*place as usize].as_ref();
            entry.is_some_and(|e| e.client == client && e.service == *service)
        };
        let hash = self.hash(client, service);
        self.index.find(hash, is_it).copied()
    }

    /// Sessions of a client's group that are half-open.
    pub(super) fn half_open(&self, client: IpAddr, service: &ServiceName) -> usize {
        let place = self.find(client, service);
        let entry = place.and_then(|place| self.entries[place as usize].as_ref());
        entry.map_or(0, |entry| entry.half_open as usize)
    }

    /// One of its sessions is half-open.
    pub(super) fn begin(&mut self, place: GroupPlace) {
        if let Some(entry) = &mut self.entries[place as usize] {
            entry.half_open += 1;
        }
    }

    /// One that was half-open is not any more.
    pub(super) fn settle(&mut self, place: Option<GroupPlace>) {
        let entry = place.and_then(|place| self.entries.get_mut(place as usize));
        if let Some(entry) = entry.and_then(Option::as_mut) {
            entry.half_open = entry.half_open.saturating_sub(1);
        }
    }

    pub(super) fn get(&mut self, place: Option<GroupPlace>) -> Option<&mut Group> {
        let entry = self.entries.get_mut(place? as usize)?.as_mut()?;
        Some(&mut entry.group)
    }

    /// A session is over. The group goes with its last one.
    pub(super) fn release(&mut self, place: GroupPlace) {
        let left = self.entries[place as usize].take_if(|entry| {
            entry.sessions -= 1;
            entry.sessions == 0
        });
        let Some(entry) = left else {
            return;
        };
        let hash = self.hash(entry.client, &entry.service);
        if let Ok(found) = self.index.find_entry(hash, |&p| p == place) {
            found.remove();
        }
        self.free.push(place);
    }

    /// Groups there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn hash(&self, client: IpAddr, service: &ServiceName) -> u64 {
        hash_of(self.key, client, service)
    }
}

fn hash_of(key: [u64; 2], client: IpAddr, service: &ServiceName) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    client.hash(&mut hasher);
    service.as_str().hash(&mut hasher);
    hasher.finish()
}

//! What is told of a world.

/// What a world has seen: a test that sees nothing of what it is for has tested nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    pub sessions: u64,
    pub complete: u64,
    pub reset: u64,
    pub own: u64,
    pub bytes: u64,
    pub flipped: u64,
    pub switched: u64,
    pub evicted: u64,
    pub joined: u64,
    pub diverged: u64,
    pub lagging: u64,
    pub log_cuts: u64,
    pub orphaned: u64,
    pub refused: u64,
    pub cookies: u64,
    pub spilled: u64,
    pub packets: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        self.sessions += other.sessions;
        self.complete += other.complete;
        self.reset += other.reset;
        self.own += other.own;
        self.bytes += other.bytes;
        self.flipped += other.flipped;
        self.switched += other.switched;
        self.evicted += other.evicted;
        self.joined += other.joined;
        self.diverged += other.diverged;
        self.lagging += other.lagging;
        self.log_cuts += other.log_cuts;
        self.orphaned += other.orphaned;
        self.refused += other.refused;
        self.cookies += other.cookies;
        self.spilled += other.spilled;
        self.packets += other.packets;
    }
}

/// A packet in a line.
pub fn summary(packet: &[u8]) -> String {
    let Ok(parsed) = etherparse::SlicedPacket::from_ip(packet) else {
        return "garbled".into();
    };
    let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else {
        return "not TCP".into();
    };
    let flags = [
        (tcp.syn(), "S"),
        (tcp.fin(), "F"),
        (tcp.rst(), "R"),
        (tcp.ack(), "A"),
    ];
    let flags = flags.map(|(is, name)| if is { name } else { "" }).concat();
    let (sequence, acknowledged) = (tcp.sequence_number(), tcp.acknowledgment_number());
    let (length, window) = (tcp.payload().len(), tcp.window_size());
    let (from, to) = (tcp.source_port(), tcp.destination_port());
    format!("{from}-{to} {flags} {sequence}+{length} ack {acknowledged} window {window}")
}

//! What is answered.

use super::super::clock::Clock;
use super::super::disk;
use super::super::group::{Lifetime, Link, Shared, Standing, Unanswered};
use super::super::parts::Wires;
use super::log::{Log, NotKept};
use super::source::Source;
use lockstep_api::{GroupReply, RandomStatus};
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::config::random::Random;
use lockstep_ctl_core::drains::Timestamp;
use lockstep_ctl_core::random::book::Record;
use lockstep_ctl_core::random::derive::Secret;
use lockstep_ctl_core::random::request::{BadRequest, Key, Name, Range, Request, Which, date_of};
use lockstep_ctl_core::random::{Kept, Numbers, text};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Requests for the same numbers wait for each other; so do others that share their lock.
const LOCKS: usize = 256;
/// How often a count is tried that others count at the same time.
const TRIES: usize = 16;

/// An answer.
#[derive(Debug)]
pub struct Document {
    /// Its text.
    pub text: String,
    /// What kind of document it is.
    pub mime: &'static str,
}

/// Why there is none. Its text is what the client gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request is wrong.
    #[error(transparent)]
    Request(#[from] BadRequest),
    /// Nobody knows what others were given, or would be.
    #[error(
        "Error: The store of the group does not answer ({0}); numbers that are not yet known here would not be those of the other balancers"
    )]
    Store(String),
    /// What is not kept must not be handed out.
    #[error("Error: The numbers could not be kept: {0}")]
    NotKept(String),
    /// The other service has none.
    #[error("Error: The source of random numbers does not give any: {0}")]
    Source(String),
    /// What the store has is not what was written there.
    #[error(
        "Error: The store of the group has something else for these numbers; delete the key {0}"
    )]
    Damaged(String),
}

impl From<NotKept> for Refused {
    fn from(error: NotKept) -> Self {
        Refused::NotKept(error.0)
    }
}

impl From<Unanswered> for Refused {
    fn from(error: Unanswered) -> Self {
        Refused::Store(error.0)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Service {
    settings: Random,
    source: Option<Source>,
    shared: Shared,
    config: watch::Receiver<Arc<Config>>,
    clock: Clock,
    state_dir: PathBuf,
    /// Opened when it is first needed, and again where that failed.
    log: Arc<Mutex<Option<Log>>>,
    secret: tokio::sync::Mutex<Option<Known>>,
    locks: Vec<tokio::sync::Mutex<()>>,
    reports: watch::Sender<GroupReply>,
}

/// A secret, and whose it is.
#[derive(Debug, Clone)]
struct Known {
    secret: Secret,
    /// The number of the connection to the store that has confirmed it; `None` of a balancer that
    /// is alone, or could not ask yet.
    confirmed: Option<u64>,
    group: Option<String>,
}

impl Known {
    fn is_of(&self, group: Option<&str>) -> bool {
        self.group.as_deref() == group
    }
}

impl Service {
    /// With nothing known yet.
    pub fn new(wires: &Wires, settings: &Random, shared: Shared) -> Self {
        let source = Source::new(settings);
        wires.reports.group.send_modify(|reply| {
            let mut status = reply.random.take().unwrap_or_default();
            status.configured = true;
            status.listen.clear();
            status.source = match &settings.source {
                Some(url) => url.to_string(),
                None => "the operating system".to_owned(),
            };
            reply.random = Some(status);
        });
        Service {
            settings: settings.clone(),
            source,
            shared,
            config: wires.config.clone(),
            clock: Clock::start(),
            state_dir: wires.state_dir.clone(),
            log: Arc::default(),
            secret: tokio::sync::Mutex::new(None),
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            reports: wires.reports.group.clone(),
        }
    }

    /// Says where it is served, or why it is not.
    pub fn listening(&self, at: Result<SocketAddr, String>) {
        self.report(|status| match at {
            Ok(at) => {
                status.listen = at.to_string();
                status.error.clear();
            }
            Err(error) => status.error = error,
        });
    }

    fn report(&self, change: impl FnOnce(&mut RandomStatus)) {
        self.reports
            .send_modify(|reply| change(reply.random.get_or_insert_default()));
    }

    /// The answer to a client's parameters.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn answer(
        &self,
        pairs: &[(String, String)],
        client: IpAddr,
    ) -> Result<Document, Refused> {
        let answer = self.try_answer(pairs, client).await;
        let kept = match self.log.try_lock() {
            Ok(log) => log.as_ref().map(|log| log.book().len() as u64),
            Err(_) => None,
        };
        self.report(|status| {
            status.kept = kept.unwrap_or(status.kept);
            match &answer {
                Ok(_) => {
                    status.answers += 1;
                    status.error.clear();
                }
                Err(refused) => {
                    status.errors += 1;
                    // What a client did wrong is not in anybody's way.
                    if !matches!(refused, Refused::Request(_)) {
                        if status.error.is_empty() {
                            tracing::error!("random numbers: {refused}");
                        }
                        status.error = refused.to_string();
                    }
                }
            }
        });
        answer
    }

    async fn try_answer(
        &self,
        pairs: &[(String, String)],
        client: IpAddr,
    ) -> Result<Document, Refused> {
        let now = self.clock.now();
        let today = date_of(now.0 / 86_400_000);
        let Request {
            range,
            mut which,
            layout,
        } = Request::parse(pairs, &today)?;
        if let Which::NextCall { session } = which {
            let call = self.count(&session, client).await?;
            which = Which::Call { session, call };
        }
        let key = Key::new(range, &which).expect("a next call has become a call");
        let numbers = match (&which, &self.source) {
            (Which::Call { .. } | Which::Fixed(_), None) => {
                let secret = self.secret().await?;
                secret.integers(&key, &[0; 16], range)
            }
            _ => self.kept(&key, &which, range).await?,
        };
        Ok(Document {
            text: text::document(&numbers, range, layout),
            mime: text::mime(layout.format),
        })
    }

    /// Numbers that have to be kept: what others were given, or new ones.
    async fn kept(&self, key: &Key, which: &Which, range: Range) -> Result<Vec<i32>, Refused> {
        let _one_at_a_time = self.lock(key.as_str()).await;
        let (time, lasting) = match which {
            Which::Current => (self.settings.ttl, false),
            _ => (self.settings.keep, true),
        };
        let known = self.known(key).await?;
        let numbers = match (self.shared.standing(), known) {
            // What lasts is the same everywhere, and known here already.
            (_, Some(known)) if lasting => known,
            (Standing::Alone, Some(known)) => known,
            (Standing::Alone, None) => {
                let numbers = self.draw(which, range).await?;
                let until = self.clock.now().after(time);
                self.keep(key, &numbers, until).await?;
                numbers
            }
            (Standing::Away(_), Some(known)) => known,
            (Standing::Away(why), None) => return Err(Refused::Store(why)),
            (Standing::There(link), known) => {
                match self.of_group(&link, key, which, range).await {
                    Ok(kept) => {
                        // While the store is away nobody here knows when it would have ended:
                        // not later than whoever began it has written, by the wall clock.
                        let left = kept.until.since(Clock::wall()).min(time);
                        let until = self.clock.now().after(left);
                        if known.as_ref() != Some(&kept.numbers)
                            && let Err(error) = self.keep(key, &kept.numbers, until).await
                        {
                            // The group remembers; this balancer may need it while the store is
                            // away, and refuses then.
                            tracing::warn!("{error}");
                        }
                        kept.numbers
                    }
                    Err(Refused::Store(why)) => known.ok_or(Refused::Store(why))?,
                    Err(other) => return Err(other),
                }
            }
        };
        let secret = self.secret_for(&numbers).await?;
        numbers
            .reveal(&secret, key, range)
            .ok_or_else(|| Refused::Damaged(key.as_str().to_owned()))
    }

    /// A list of numbers needs no secret, and must be had without one.
    async fn secret_for(&self, numbers: &Numbers) -> Result<Secret, Refused> {
        match numbers {
            Numbers::Salt(_) => self.secret().await,
            Numbers::List(_) => Ok(Secret::new([0; 32])),
        }
    }

    /// What the group has for a key: the first balancer's, or ours.
    async fn of_group(
        &self,
        link: &Link,
        key: &Key,
        which: &Which,
        range: Range,
    ) -> Result<Kept, Refused> {
        let place = link.keys.random(&format!("numbers/{}", key.as_str()));
        let read =
            |bytes: &[u8]| Kept::from_json(bytes).ok_or_else(|| Refused::Damaged(place.clone()));
        if let Some(there) = link.get(&place).await? {
            return read(&there.bytes);
        }
        self.admit(None).await?;
        let numbers = self.draw(which, range).await?;
        let (time, lifetime) = match which {
            Which::Current => (self.settings.ttl, Lifetime::Exactly(self.settings.ttl)),
            _ => (self.settings.keep, Lifetime::About(self.settings.keep)),
        };
        let kept = Kept {
            until: Clock::wall().after(time),
            numbers,
        };
        let value = kept.to_json().into_bytes();
        match link.put_if(&place, value, 0, lifetime).await? {
            None => Ok(kept),
            Some(there) => read(&there.bytes),
        }
    }

    async fn draw(&self, which: &Which, range: Range) -> Result<Numbers, Refused> {
        let Some(source) = &self.source else {
            return Ok(Numbers::Salt(from_system()?));
        };
        let fixed = match which {
            Which::Fixed(name) => Some(name.as_str()),
            _ => None,
        };
        let drawn = source.draw(range, fixed).await;
        drawn.map(Numbers::List).map_err(Refused::Source)
    }

    /// The call that a replica's request is, in a session.
    async fn count(&self, session: &Name, client: IpAddr) -> Result<u64, Refused> {
        let what = format!("calls/{}/{client}", session.as_str());
        let _one_at_a_time = self.lock(&what).await;
        match self.shared.standing() {
            Standing::Alone => {
                let (session, keep) = (session.clone(), self.settings.keep);
                let now = self.clock.now();
                self.with_log(move |log| {
                    let until = now.after(keep);
                    let (call, record) = log.book().next_call(&session, client, now, until);
                    log.keep(record, now).map(|()| call)
                })
                .await
            }
            Standing::Away(why) => Err(Refused::Store(why)),
            Standing::There(link) => {
                let place = link.keys.random(&what);
                let mut there = link.get(&place).await?;
                if there.is_none() {
                    self.admit(Some(client)).await?;
                }
                for _ in 0..TRIES {
                    let (calls, revision) = match &there {
                        None => (0, 0),
                        Some(value) => {
                            let text = std::str::from_utf8(&value.bytes).ok();
                            let calls = text.and_then(|text| text.parse::<u64>().ok());
                            let calls = calls.ok_or_else(|| Refused::Damaged(place.clone()))?;
                            (calls, value.revision)
                        }
                    };
                    let call = calls + 1;
                    let value = call.to_string().into_bytes();
                    let lifetime = Lifetime::About(self.settings.keep);
                    there = link.put_if(&place, value, revision, lifetime).await?;
                    if there.is_none() {
                        self.note(session, client).await?;
                        return Ok(call);
                    }
                }
                Err(Refused::Store("too many count at a time".to_owned()))
            }
        }
    }

    /// Bounds what strangers can make a group keep: each balancer adds as much as it keeps itself.
    async fn admit(&self, client: Option<IpAddr>) -> Result<(), Refused> {
        let now = self.clock.now();
        self.with_log(move |log| log.has_room(client, now)).await
    }

    async fn note(&self, session: &Name, client: IpAddr) -> Result<(), Refused> {
        let (session, now) = (session.clone(), self.clock.now());
        let until = now.after(self.settings.keep);
        self.with_log(move |log| {
            let (_, record) = log.book().next_call(&session, client, now, until);
            log.note(record);
            Ok(())
        })
        .await
    }

    async fn lock(&self, what: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % LOCKS as u64).expect("less than LOCKS");
        self.locks[at].lock().await
    }

    // ---- On disk -------------------------------------------------------------------------

    async fn known(&self, key: &Key) -> Result<Option<Numbers>, Refused> {
        let (key, now) = (key.clone(), self.clock.now());
        self.with_log(move |log| Ok(log.book().answer(&key, now).map(|kept| kept.numbers)))
            .await
    }

    async fn keep(&self, key: &Key, numbers: &Numbers, until: Timestamp) -> Result<(), Refused> {
        let now = self.clock.now();
        let kept = Kept {
            until,
            numbers: numbers.clone(),
        };
        let record = Record::answer(key.clone(), kept);
        self.with_log(move |log| log.keep(record, now)).await
    }

    async fn with_log<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<T, NotKept> + Send + 'static,
    ) -> Result<T, Refused> {
        let (log, path) = (Arc::clone(&self.log), self.state_dir.join("random.log"));
        let done = tokio::task::spawn_blocking(move || {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let log = match &mut *log {
                Some(log) => log,
                none => none.insert(Log::open(path)?),
            };
            work(log)
        });
        match done.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Refused::NotKept("the daemon ends".to_owned())),
        }
    }

    // ---- The secret ----------------------------------------------------------------------

    /// What numbers are derived from: this balancer's own, or the group's.
    async fn secret(&self) -> Result<Secret, Refused> {
        let mut known = self.secret.lock().await;
        let group = self.group();
        let known_here = known.as_ref().filter(|k| k.is_of(group.as_deref()));
        let found = match (self.shared.standing(), known_here) {
            (Standing::Alone | Standing::Away(_), Some(known)) => return Ok(known.secret.clone()),
            (Standing::There(link), Some(known)) if known.confirmed == Some(link.number) => {
                return Ok(known.secret.clone());
            }
            (Standing::Alone, None) => Known {
                secret: match self.read_secret(OWN)? {
                    Some(secret) => secret,
                    None => self.write_secret(OWN, Secret::new(from_system()?))?,
                },
                confirmed: None,
                group: None,
            },
            (Standing::There(link), _) => self.secret_of_group(&link, group).await?,
            (Standing::Away(why), None) => match self.read_secret(&file_of(group.as_deref()))? {
                Some(secret) => Known {
                    secret,
                    confirmed: None,
                    group,
                },
                None => return Err(Refused::Store(why)),
            },
        };
        let secret = found.secret.clone();
        *known = Some(found);
        Ok(secret)
    }

    /// The group's secret: the first balancer's that offered one.
    async fn secret_of_group(&self, link: &Link, group: Option<String>) -> Result<Known, Refused> {
        let place = link.keys.random("secret");
        let file = file_of(group.as_deref());
        let before = self.read_secret(&file)?;
        let offer = match before.clone().or(self.read_secret(OWN)?) {
            Some(secret) => secret,
            None => Secret::new(from_system()?),
        };
        let value = offer.to_hex().into_bytes();
        let secret = match link.put_if(&place, value, 0, Lifetime::Forever).await? {
            None => offer,
            Some(there) => std::str::from_utf8(&there.bytes)
                .ok()
                .and_then(Secret::from_hex)
                .ok_or_else(|| Refused::Damaged(place.clone()))?,
        };
        if before.as_ref() != Some(&secret) {
            if before.is_some() {
                tracing::warn!(
                    "the group has another secret than before: calls that were answered before \
                     get other numbers from now on"
                );
            }
            self.write_secret(&file, secret.clone())?;
        }
        Ok(Known {
            secret,
            confirmed: Some(link.number),
            group,
        })
    }

    /// The group that is configured.
    fn group(&self) -> Option<String> {
        let config = self.config.borrow();
        config.store.as_ref().map(|store| store.group.clone())
    }

    fn read_secret(&self, name: &str) -> Result<Option<Secret>, Refused> {
        let path = self.state_dir.join(name);
        let wrong = |why: &dyn std::fmt::Display| {
            let path = path.display();
            Refused::NotKept(format!("cannot read {path}: {why}"))
        };
        let Some(bytes) = disk::read(&path, 1024).map_err(|e| wrong(&e))? else {
            return Ok(None);
        };
        let secret = std::str::from_utf8(&bytes).ok();
        let secret = secret.and_then(|text| Secret::from_hex(text.trim()));
        let damaged = "it is damaged; delete it, and calls get other numbers from then on";
        secret.map(Some).ok_or_else(|| wrong(&damaged))
    }

    /// Kept before it is used: what is derived from it must come again after a restart.
    fn write_secret(&self, name: &str, secret: Secret) -> Result<Secret, Refused> {
        let path = self.state_dir.join(name);
        let written = disk::replace(&path, secret.to_hex().as_bytes(), 0o600);
        match written {
            Ok(()) => Ok(secret),
            Err(error) => Err(Refused::NotKept(format!(
                "cannot write {}: {error}",
                path.display()
            ))),
        }
    }
}

/// The file with the secret of a balancer that is alone.
const OWN: &str = "random.secret";

/// The file with the secret of a group.
fn file_of(group: Option<&str>) -> String {
    match group {
        Some(group) => format!("{OWN}.{group}"),
        None => OWN.to_owned(),
    }
}

fn from_system<const N: usize>() -> Result<[u8; N], Refused> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refused::Source(format!("the operating system: {error}")))?;
    Ok(bytes)
}

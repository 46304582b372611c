//! Building the lab, and the lab as a whole.

use super::balancer::{self, Balancer, Spread};
use super::client::{self, Client};
use super::links::{End, connect};
use super::router::{self, Router};
use super::routing::{Program, Routing, Way};
use super::run::Run;
use super::server::{self, Server};
use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A client's usual MTU.
const CLIENT_MTU: u16 = 1500;
/// A client's full packet plus an IPv6 header, a VLAN tag and some air.
const RACK_MTU: u16 = 1600;

/// The lab: every machine of it.
#[derive(Debug)]
pub struct Lab {
    /// Where requests come from.
    pub client: Client,
    /// The balancers, `b0` first.
    pub balancers: Vec<Balancer>,
    /// The real servers, `s1` first.
    pub servers: Vec<Server>,
    /// Between them. After the others: their links end in it.
    pub router: Router,
    run: Arc<Run>,
    /// One lab at a time in a process: they would measure each other.
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// One balancer with one queue, and three servers, unless said otherwise.
    pub fn builder() -> LabBuilder {
        LabBuilder {
            balancers: 1,
            servers: 3,
            queues: 1,
            spread: Spread::Rss,
        }
    }

    /// The run that everything in the lab belongs to.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Everything a scenario with Lockstep starts from: servers that take the outer header off,
    /// and on every balancer an engine and a daemon with these services in force.
    pub fn start_lockstep(&mut self, services: &str) -> Result<()> {
        self.attach_decap()?;
        for balancer in &mut self.balancers {
            balancer.start_engine()?;
            std::fs::write(balancer.services_file(), services)?;
            balancer.start_daemon()?;
            balancer.apply(services)?;
        }
        Ok(())
    }

    /// Has the router learn the VIPs' routes by BGP, from now on and until the routing is dropped.
    pub fn start_routing(&self, program: Program, way: Way) -> Result<Routing> {
        Routing::start(&self.run, &self.router, program, way)
    }

    /// The requests that each server has answered.
    pub fn requests(&self) -> Result<Vec<u64>> {
        self.servers.iter().map(Server::requests).collect()
    }

    /// Every server takes the outer header off what balancers send it, and the switch takes what
    /// their XDP programs send themselves.
    pub fn attach_decap(&self) -> Result<()> {
        self.servers.iter().try_for_each(Server::attach_decap)?;
        let mut names = self.balancers.iter().map(Balancer::name);
        names.try_for_each(|name| self.router.take_redirects(&name))
    }
}

/// What the lab is to consist of.
#[derive(Debug, Clone)]
pub struct LabBuilder {
    balancers: usize,
    servers: usize,
    queues: usize,
    spread: Spread,
}

impl LabBuilder {
    /// The number of balancers, 1 to 8.
    #[must_use]
    pub fn balancers(mut self, count: usize) -> Self {
        self.balancers = count;
        self
    }

    /// The number of servers, 1 to 200.
    #[must_use]
    pub fn servers(mut self, count: usize) -> Self {
        self.servers = count;
        self
    }

    /// The number of queues, and so of workers, of each balancer.
    #[must_use]
    pub fn queues(mut self, count: usize) -> Self {
        self.queues = count;
        self
    }

    /// How each balancer's workers share the packets.
    #[must_use]
    pub fn spread(mut self, spread: Spread) -> Self {
        self.spread = spread;
        self
    }

    /// Builds the lab and starts its nginx servers; engines and daemons are the scenario's to start.
    pub fn start(&self) -> Result<Lab> {
        static ALONE: Mutex<()> = Mutex::new(());
        ensure!(
            geteuid().is_root(),
            "The lab makes network namespaces and loads XDP programs, which needs root: run it \
             with sudo."
        );
        ensure!(
            (1..=8).contains(&self.balancers),
            "a lab has 1 to 8 balancers"
        );
        ensure!(
            (1..=200).contains(&self.servers),
            "a lab has 1 to 200 servers"
        );
        ensure!(
            (1..=16).contains(&self.queues),
            "a balancer has 1 to 16 queues"
        );
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let run = Arc::new(Run::start()?);
        let router = Router::new(&run, RACK_MTU)?;
        let client = self.client(&run, &router)?;
        let balancers = (0..self.balancers)
            .map(|index| self.balancer(&run, &router, index))
            .collect::<Result<Vec<_>>>()?;
        let servers = (0..self.servers)
            .map(|index| server(&run, &router, index))
            .collect::<Result<Vec<_>>>()?;
        router.route_vips_to(&(0..self.balancers).collect::<Vec<_>>())?;
        Ok(Lab {
            client,
            balancers,
            servers,
            router,
            run,
            _alone: alone,
        })
    }

    fn client(&self, run: &Arc<Run>, router: &Router) -> Result<Client> {
        let client = Client::new(run)?;
        // As many queues as the balancer has: the router sends a packet on the queue that it
        // came by, so that flows spread over the balancer's.
        let (near, far) = (client::DEVICE, router::CLIENT_DEVICE);
        let client_end = End {
            netns: client.netns(),
            device: near,
            queues: self.queues,
        };
        let router_end = End {
            netns: router.netns(),
            device: far,
            queues: self.queues,
        };
        connect(&client_end, &router_end, CLIENT_MTU)?;
        router.configure()?;
        client.configure()?;
        Ok(client)
    }

    fn balancer(&self, run: &Arc<Run>, router: &Router, index: usize) -> Result<Balancer> {
        let balancer = Balancer::new(run, index, self.queues, self.spread)?;
        let port = balancer.name();
        let end = End {
            netns: balancer.netns(),
            device: balancer::DEVICE,
            queues: self.queues,
        };
        let router_end = End {
            netns: router.netns(),
            device: &port,
            queues: self.queues,
        };
        connect(&end, &router_end, RACK_MTU)?;
        router.plug(&port)?;
        balancer.configure()?;
        Ok(balancer)
    }
}

fn server(run: &Arc<Run>, router: &Router, index: usize) -> Result<Server> {
    let mut server = Server::new(run, index)?;
    let port = server.name();
    let end = End {
        netns: server.netns(),
        device: server::DEVICE,
        queues: 1,
    };
    let router_end = End {
        netns: router.netns(),
        device: &port,
        queues: 1,
    };
    connect(&end, &router_end, RACK_MTU)?;
    router.plug(&port)?;
    server.configure()?;
    Ok(server)
}

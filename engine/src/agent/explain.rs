//! Explanations: the tables in force, and what the workers' flow tables say.

use super::Agent;
use crate::mailbox::{Command, Reply};
use lockstep_api as api;
use lockstep_api::explain_request::Packet;
use lockstep_core::dataplane::KnownFlow;
use lockstep_core::explain::{self, Explanation, Fate};
use lockstep_plan::Protocol;
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6};
use std::net::IpAddr;
use std::sync::Arc;

/// Explains one packet, or says what is wrong with the request.
pub async fn one(agent: &Agent, request: api::ExplainRequest) -> Result<api::Explanation, String> {
    let tables = Arc::clone(&agent.state.lock().await.tables);
    let interfaces = agent.topology.interfaces();
    let ports: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
    let explanation = match request.packet {
        Some(Packet::Frame(frame)) => {
            let known = match explain::flow_of(&frame) {
                Some(key) => known(agent, key).await,
                None => None,
            };
            explain::frame(&tables, &ports, &frame, known)
        }
        Some(Packet::Tuple(tuple)) => {
            let key = key(&tuple)?;
            let known = known(agent, key).await;
            explain::tuple(&tables, &ports, &key, known)
        }
        None => return Err("the request has neither a 5-tuple nor a frame".to_owned()),
    };
    Ok(message(explanation))
}

/// The flow's entry: a flow lives in one worker's table, and which one the NIC decides.
async fn known(agent: &Agent, key: FlowKey) -> Option<KnownFlow> {
    for worker in &agent.workers {
        if let Some(Reply::Known(Some(known))) = worker.ask(Command::Known(key)).await {
            return Some(known);
        }
    }
    None
}

fn key(tuple: &api::FiveTuple) -> Result<FlowKey, String> {
    let address = |text: &str| -> Result<IpAddr, String> {
        text.parse()
            .map_err(|_| format!("`{text}` is no IP address"))
    };
    let port = |number: u32| {
        u16::try_from(number).map_err(|_| format!("{number} is no port: they end at 65535"))
    };
    let protocol = match tuple.protocol() {
        api::Protocol::Tcp => Protocol::Tcp,
        api::Protocol::Udp => Protocol::Udp,
        api::Protocol::Unspecified => return Err("the protocol is missing: tcp or udp".into()),
    }
    .number();
    let (from, to) = (port(tuple.client_port)?, port(tuple.vip_port)?);
    match (address(&tuple.client)?, address(&tuple.vip)?) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => {
            Ok(FlowKey::V4(FlowKey4::new(client, from, vip, to, protocol)))
        }
        (IpAddr::V6(client), IpAddr::V6(vip)) => {
            Ok(FlowKey::V6(FlowKey6::new(client, from, vip, to, protocol)))
        }
        (client, vip) => Err(format!("{client} and {vip} are not of one IP version")),
    }
}

/// An explanation for the API.
pub fn message(explanation: Explanation) -> api::Explanation {
    let mut message = api::Explanation {
        service: explanation.service.unwrap_or_default(),
        steps: explanation.steps,
        packet: explanation.packet,
        ..api::Explanation::default()
    };
    match explanation.fate {
        Fate::Forward { name, address, .. } => {
            message.verdict = "forward".to_owned();
            message.backend_name = name;
            message.backend = address.to_string();
        }
        Fate::Answer { client, .. } => {
            message.verdict = "forward".to_owned();
            message.client = client.to_string();
        }
        Fate::Reply => message.verdict = "reply".to_owned(),
        Fate::Unsettled => message.verdict = "depends".to_owned(),
        Fate::Sent => message.verdict = "forward".to_owned(),
        Fate::Session => message.verdict = "session".to_owned(),
        Fate::Pass => message.verdict = "pass".to_owned(),
        Fate::Drop(reason) => {
            message.verdict = "drop".to_owned();
            message.reason = reason.to_string();
        }
    }
    message
}

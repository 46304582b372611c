//! The status of advertisements.

use super::pool::Said;
use super::{Told, tell};
use crate::kubernetes::advertise::problem;
use crate::kubernetes::write::{Kind, Object};
use crate::kubernetes::{World, Write};
use lockstep_kubernetes::facts::Name;
use serde_json::json;

/// What differs.
pub(super) fn write(world: &World, now: &str, writes: &mut Vec<Write>) {
    for (name, object) in &world.advertisements {
        let before = object.status.clone().unwrap_or_default();
        let generation = object.metadata.generation;
        let said = match problem(object, world) {
            None => Said {
                kind: "Ready",
                is: true,
                reason: "Announced",
                message: String::new(),
                event: None,
            },
            Some((reason, message)) => Said {
                kind: "Ready",
                is: false,
                reason,
                message,
                event: Some(reason),
            },
        };
        let conditions = json!([said.json(&before.conditions, generation, now)]);
        let unchanged = before.observed_generation == generation
            && serde_json::to_value(&before.conditions).is_ok_and(|known| known == conditions);
        if unchanged {
            continue;
        }
        let name = Name::new("", name);
        writes.push(Write::Apply {
            object: Object {
                kind: Kind::Advertisement,
                name: name.clone(),
            },
            status: true,
            body: json!({
                "status": { "observedGeneration": generation, "conditions": conditions }
            }),
        });
        if let Some(reason) = said.event.filter(|_| said.is_news(&before.conditions)) {
            let told = Told {
                warning: true,
                reason,
                action: "Read",
                note: &said.message,
            };
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            writes.push(tell(Kind::Advertisement, &name, uid, &told));
        }
    }
}

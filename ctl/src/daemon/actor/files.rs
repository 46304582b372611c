//! The files: read when they change, each in force as a whole or not at all.

use super::{Actor, show};
use crate::daemon::refusal::Refusal;
use lockstep_api::{ApplyFileReply, ApplyFileRequest};
use lockstep_ctl_core::config::diff::{Difference, differences};
use lockstep_ctl_core::config::{self, ConfigFile};
use lockstep_ctl_core::services::parse;
use lockstep_ctl_core::services::sources::Offer;
use lockstep_plan::Service;
use std::sync::Arc;

impl Actor {
    /// Reads the services file. Returns whether there are new services to put in force.
    pub(super) fn read_services(&mut self) -> bool {
        let read = self
            .store
            .load_services()
            .map_err(|error| error.to_string());
        if self.seen.services.as_ref() == Some(&read) {
            return false;
        }
        self.seen.services = Some(read.clone());
        let parsed = read.and_then(|text| {
            let file = parse(&self.services_file, &text).map_err(|errors| errors.to_string())?;
            Ok((text, file))
        });
        match parsed {
            Ok((text, file)) => {
                file.warnings
                    .iter()
                    .for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(
                    services = file.services.len(),
                    "read {}",
                    self.services_file
                );
                self.file_error.clear();
                self.adopt(&text, Arc::new(file.into()));
                true
            }
            Err(error) => {
                error.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!(
                    "{} is not applied; what is in force stays",
                    self.services_file
                );
                self.file_error = error;
                false
            }
        }
    }

    pub(super) fn read_last_good(&mut self) {
        let text = match self.store.load_last_good() {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => return tracing::warn!("{error}"),
        };
        if let Ok(file) = parse("the last services without errors", &text) {
            tracing::warn!("going on with the last services without errors");
            self.text = text.into();
            self.set_file(Arc::new(file.into()));
        }
    }

    /// Makes these the services that should be in force, from a text without errors.
    pub(super) fn adopt(&mut self, text: &str, file: Arc<Offer>) {
        self.set_file(file);
        if let Err(error) = self.store.save_last_good(text) {
            tracing::warn!("{error}; needed only if the file is damaged when the daemon restarts");
        }
        self.text = text.into();
    }

    fn set_file(&mut self, file: Arc<Offer>) {
        self.wanted.change(|sources| sources.set_file(file));
    }

    /// Ends the drains of backends that no source has any more, once the engine has it so: it may
    /// refuse what they say, and then has the backends still. In a group none ends by that: the
    /// others' files may have the backend. Nor does one while a provider has yet to say what it
    /// has.
    pub(super) fn end_drains_of_others(&mut self) {
        let sources = self.line.accepted();
        let awaits = sources.awaits() || self.wanted.sources().awaits();
        let nobody_knows = awaits || sources.is_unknown();
        if nobody_knows || self.config.store.is_some() || self.drains.iter().next().is_none() {
            return;
        }
        let listed: Vec<Service> = sources.said().cloned().collect();
        let ended = self.drains.retain_in(&listed);
        if !ended.is_empty() {
            ended
                .iter()
                .for_each(|t| tracing::info!("drain of {} ends: in no service", show(t)));
            self.save_drains_or_warn();
        }
    }

    pub(super) fn save_drains_or_warn(&self) {
        if let Err(error) = self.store.save_drains(&self.drains) {
            tracing::error!("{error}; a restart of the daemon forgets what changed");
        }
    }

    // ---- lockstepd.toml --------------------------------------------------------------------

    /// Reads the configuration for the first time: where it has errors, the last one that had
    /// none.
    ///
    /// # Errors
    /// When there never was one without.
    pub(super) fn start_with_config(&mut self) -> anyhow::Result<()> {
        if self.read_config() || self.config_error.is_empty() {
            return Ok(());
        }
        let text = self.store.load_last_good_config()?;
        let parsed = text.and_then(|text| {
            let file = config::parse("the last configuration", &text).ok()?;
            Some((text, file))
        });
        let Some((text, file)) = parsed else {
            // What is wrong with it was said when it was read.
            anyhow::bail!(
                "{} cannot be used, and there is no configuration from before to go on with",
                self.config_file
            );
        };
        tracing::warn!("going on with the last configuration without errors");
        self.configure(&text, file);
        Ok(())
    }

    /// Reads `lockstepd.toml`. Returns whether there is another one in force.
    pub(super) fn read_config(&mut self) -> bool {
        let read = self.store.load_config().map_err(|error| error.to_string());
        if self.seen.config.as_ref() == Some(&read) {
            return false;
        }
        self.seen.config = Some(read.clone());
        let parsed = read.and_then(|text| {
            let file = config::parse(&self.config_file, &text);
            file.map(|file| (text, file)).map_err(|e| e.to_string())
        });
        match parsed {
            Ok((text, file)) => {
                let warnings = file.warnings.iter();
                warnings.for_each(|warning| tracing::warn!("{warning}"));
                self.config_error.clear();
                tracing::info!("read {}", self.config_file);
                self.adopt_config(&text, file);
                true
            }
            Err(error) => {
                error.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!(
                    "{} is not applied; what is in force stays",
                    self.config_file
                );
                self.config_error = error;
                false
            }
        }
    }

    /// Puts a `lockstepd.toml` in force, or says what it would change.
    pub(super) fn apply_config(
        &mut self,
        request: &ApplyFileRequest,
    ) -> Result<ApplyFileReply, Refusal> {
        let file = config::parse(&request.file, &request.text)
            .map_err(|errors| Refusal::Request(errors.to_string()))?;
        let reply = |changes: &[Difference]| ApplyFileReply {
            epoch: self.epoch,
            changes: changes.iter().map(ToString::to_string).collect(),
            ..ApplyFileReply::default()
        };
        if request.preview {
            return Ok(reply(&differences(&self.config_text, &request.text)));
        }
        let reply = reply(&[]);
        self.store.replace_config(&request.text)?.commit()?;
        self.seen.config = Some(Ok(request.text.clone()));
        self.config_error.clear();
        self.adopt_config(&request.text, file);
        Ok(reply)
    }

    fn adopt_config(&mut self, text: &str, file: ConfigFile) {
        if let Err(error) = self.store.save_last_good_config(text) {
            tracing::warn!("{error}; needed only if the file is damaged when the daemon restarts");
        }
        self.configure(text, file);
    }

    fn configure(&mut self, text: &str, file: ConfigFile) {
        self.config_text = text.to_owned();
        self.config = Arc::new(file.config);
        self.orders.config.send_replace(Arc::clone(&self.config));
        let providers = self.config.providers();
        let mut changed = false;
        self.wanted
            .change(|sources| changed = sources.expect(&providers));
        if changed {
            self.tell_engine();
        }
    }
}

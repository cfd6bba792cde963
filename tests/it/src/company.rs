//! What a server has beside it when the suite runs on engines.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::Engine;
use crate::seed::Dice;
use crate::server::{Options, Server};
use crate::worker::Worker;

/// Another manager on the same engines, a worker that speaks to them itself, and one that speaks to the other manager.
#[derive(Debug)]
pub(crate) struct Company {
    // Workers end before their manager does.
    workers: Vec<Worker>,
    pub(crate) twin: Option<Server>,
    pub(crate) engine: Engine,
    dice: Mutex<Dice>,
    turn: AtomicUsize,
    started: AtomicUsize,
}

/// The arguments with which another manager listens beside the first: what it is told of an address, at any port.
fn elsewhere(args: &[String]) -> Vec<String> {
    let mut args = args.to_vec();
    for at in 1..args.len() {
        if let (true, Some((host, _))) = (args[at - 1] == "--sql-listen", args[at].rsplit_once(':')) {
            args[at] = format!("{host}:0");
        }
    }
    args
}

impl Company {
    /// As the server's options leave room for it: no workers beside one that starts none, or starts them as they are needed.
    pub(crate) fn of(server: &Server, engine: Engine, options: &Options) -> Self {
        // What managers sign themselves is for their own endpoint, and a worker that speaks to the engines has to be told where that is.
        let engine = server.s3_url().map_or_else(|| engine.clone(), |url| engine.with("TIDEMILL_SERVER_S3_URL", &url));
        let mut company = Self {
            workers: Vec::new(),
            twin: None,
            engine,
            dice: Mutex::new(Dice::new("company")),
            turn: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
        };
        if !options.company {
            return company;
        }
        let like = Options { workers: "0..0", data: None, args: elsewhere(&options.args), ..options.clone() };
        let twin = Server::start_alone(like);
        if !options.workers.starts_with('0') {
            let slots = options.slots.to_string();
            let mut args = vec!["--slots", slots.as_str()];
            // What the server's own workers run engines with, the others do too.
            let python = options.variables.iter().find(|(name, _)| name == "TIDEMILL_GRID_PYTHON");
            args.extend(python.iter().flat_map(|(_, python)| ["--python", python.as_str()]));
            let direct = server.folder().join("outside/direct");
            company.workers.push(Worker::start_on_engines_in(server, "direct", direct, &args, &company.engine.variables));
            company.workers.push(Worker::start(&twin, "edge", &args));
        }
        company.twin = Some(twin);
        company
    }

    /// The other manager, when it is its turn, or the first one is down.
    pub(crate) fn asked(&self, first_is_up: bool) -> Option<&Server> {
        let twin = self.twin.as_ref().filter(|t| t.is_up())?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (!first_is_up || turn % 2 == 1).then_some(twin)
    }

    /// Kills the other manager in half of all cases.
    pub(crate) fn perhaps_kill9(&mut self) {
        let both = self.dice.get_mut().is_ok_and(|dice| dice.below(2) == 0);
        if let Some(twin) = self.twin.as_mut().filter(|t| both && t.is_up()) {
            twin.kill9();
        }
    }

    /// Starts the other manager again if it was killed.
    pub(crate) fn restart(&mut self) {
        if let Some(twin) = self.twin.as_mut().filter(|t| !t.is_up()) {
            twin.restart();
        }
    }

    /// Whether the next worker of a test speaks to the engines itself: every other one does.
    pub(crate) fn next_is_direct(&self) -> bool {
        self.started.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
    }
}

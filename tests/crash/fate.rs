//! The lives of a process: started, killed at a moment that its fate has set, and started again.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use gateway::crash::{Point, VARIABLE};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::load::Role;
use crate::stage::{Kill, Moment, Stage};
use crate::support::Program;

/// The longest life whose end is a random moment.
const LONGEST_LIFE_MS: u64 = 2500;
/// A point that is not passed often enough for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a start may take, while the database comes and goes.
const START: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(2);

/// When a life ends: by itself at this pass of a point, or from outside after so long.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Point(Point, u64),
    Moment(Duration),
    /// Not before the end of the run.
    None,
}

/// One process after another.
pub struct Slot {
    stage: Arc<Stage>,
    role: Role,
    /// Its place among the servers.
    place: usize,
    rng: StdRng,
    /// Takes turns.
    points: VecDeque<Point>,
}

impl Slot {
    pub fn new(stage: &Arc<Stage>, role: Role, place: usize, rng: &mut StdRng) -> Self {
        let mut rng = StdRng::from_rng(rng);
        let passed = Point::ALL.iter().copied().filter(|point| match point {
            Point::AfterIngest | Point::AfterAccept => role == Role::Server,
            _ => true,
        });
        let mut points: VecDeque<Point> = passed.collect();
        points.rotate_left(rng.random_range(0..points.len()));
        Self {
            stage: Arc::clone(stage),
            role,
            place,
            rng,
            points,
        }
    }

    /// One life after another, until it is calm; then the blackout, and a last process that goes
    /// on.
    pub async fn run(mut self) -> Program {
        let mut at_point = self.rng.random();
        while !self.stage.calm.is_cancelled() {
            let fate = self.fate(at_point);
            self.live(fate).await;
            at_point = !at_point;
        }
        let (program, life) = self.start(Fate::None).await;
        program.unwrap_or_else(|| panic!("life {life} did not begin although nothing was killed"))
    }

    fn fate(&mut self, at_point: bool) -> Fate {
        if at_point {
            self.points.rotate_left(1);
            // A worker has less to do.
            let most_passes = match self.role {
                Role::Server => 40,
                Role::Worker => 10,
            };
            Fate::Point(self.points[0], self.rng.random_range(1..=most_passes))
        } else {
            let most = self.rng.random_range(100..=LONGEST_LIFE_MS);
            Fate::Moment(Duration::from_millis(most))
        }
    }

    async fn live(&mut self, fate: Fate) {
        let (Some(mut program), life) = self.start(fate).await else {
            return;
        };
        let deadline = match fate {
            Fate::Moment(after) => after,
            _ => PATIENCE,
        };
        let calm = self.stage.calm.clone();
        let moment = tokio::select! {
            () = died(&mut program) => None,
            () = tokio::time::sleep(deadline) => Some(Moment::Random),
            () = calm.cancelled() => Some(Moment::Blackout),
        };
        let at = Utc::now();
        if moment.is_some() {
            program.kill();
        }
        self.ended(&mut program, life, fate, moment, at);
    }

    /// A process that is ready; none where it died before.
    async fn start(&mut self, fate: Fate) -> (Option<Program>, i32) {
        let (mut run, life) = self.stage.process(self.role);
        if let Fate::Point(point, pass) = fate {
            run = run.env(VARIABLE, &format!("{}:{pass}", point.name()));
        }
        let mut program = run.start();
        let ready = match self.role {
            Role::Server => "\"message\":\"ready\"",
            Role::Worker => "\"message\":\"working\"",
        };
        let deadline = Instant::now() + START;
        while !program.log().iter().any(|line| line.contains(ready)) {
            if program.try_ended().is_some() {
                self.ended(&mut program, life, fate, None, Utc::now());
                return (None, life);
            }
            assert!(
                Instant::now() < deadline,
                "{} does not start: {:#?}",
                self.role.name(),
                program.log()
            );
            tokio::time::sleep(POLL).await;
        }
        if self.role == Role::Server {
            *self.stage.scene.servers[self.place].lock().unwrap() = Some(program.url().to_owned());
        }
        (Some(program), life)
    }

    /// Notes how a life has ended; nothing but a SIGKILL ends one.
    fn ended(
        &self,
        program: &mut Program,
        life: i32,
        fate: Fate,
        moment: Option<Moment>,
        at: chrono::DateTime<Utc>,
    ) {
        if self.role == Role::Server {
            *self.stage.scene.servers[self.place].lock().unwrap() = None;
        }
        let status = program.try_ended().unwrap();
        let moment = match (moment, fate) {
            (Some(moment), _) => moment,
            (None, Fate::Point(point, _)) if status.signal() == Some(9) => Moment::Point(point),
            _ => {
                let log = program.log();
                let last = &log[log.len().saturating_sub(5)..];
                self.stage.scene.surprise(format!(
                    "{} ended by itself, {status}: {last:#?}",
                    self.role.name()
                ));
                return;
            }
        };
        let kill = Kill {
            role: self.role,
            moment,
            life,
            at,
        };
        self.stage.kills.lock().unwrap().push(kill);
    }
}

async fn died(program: &mut Program) {
    while program.try_ended().is_none() {
        tokio::time::sleep(POLL).await;
    }
}

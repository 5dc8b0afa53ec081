//! Which cases are tried: few participants, events and keys, so that they meet; texts, names and
//! times that hurt.

use gateway::channel::Channel;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest_state_machine::ReferenceStateMachine;

use super::model::{Stage, State};
use super::steps::{Address, Clock, Event, Mark, Mood, Outgoing, Transition};

/// In characters: of four bytes each, as many as the body of a request can hold; and what the
/// contract allows.
const LONGEST_INBOUND: usize = 16_000;
const LONGEST_OUTBOUND: usize = 4096;

/// The cases of a gateway with `DELIVERY_ORDER=conversation`, or of one without.
pub struct Cases<const ORDERED: bool>;

impl<const ORDERED: bool> ReferenceStateMachine for Cases<ORDERED> {
    type State = State;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<State> {
        let names = |longest| proptest::collection::vec(name(longest), 2);
        let state = (names(160), names(128))
            .prop_map(|(participants, keys)| State::new(ORDERED, participants, keys));
        state.boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Transition> {
        let mut choices = vec![
            (5, one_event(state)),
            (2, events_at_once(state)),
            (7, send(state)),
            (4, treat(state)),
            (3, Just(Transition::Heal).boxed()),
            (1, Just(Transition::Work).boxed()),
            (4, Just(Transition::WorkLater).boxed()),
        ];
        if !state.paused.is_empty() {
            choices.push((3, Just(Transition::Resume).boxed()));
        }
        if !state.conversations.is_empty() {
            choices.push((5, mark(state)));
        }
        if !state.messages.is_empty() {
            choices.push((3, message(state).prop_map(Transition::Retry).boxed()));
            choices.push((2, message(state).prop_map(Transition::Cancel).boxed()));
        }
        Union::new_weighted(choices).boxed()
    }

    fn apply(state: State, transition: &Transition) -> State {
        state.apply(transition)
    }

    /// What a transition is about may be gone when a case is made smaller.
    fn preconditions(state: &State, transition: &Transition) -> bool {
        match transition {
            Transition::Mark(_, address) => state.conversation(address).is_some(),
            Transition::Retry(back) | Transition::Cancel(back) => *back < state.messages.len(),
            _ => true,
        }
    }
}

fn one_event(state: &State) -> BoxedStrategy<Transition> {
    let once_more = state
        .events
        .values()
        .map(|(event, _)| event.clone())
        .collect::<Vec<_>>();
    let mut choices = vec![(4, event(state, clock()))];
    if !once_more.is_empty() {
        choices.push((1, select(once_more).boxed()));
    }
    let one = Union::new_weighted(choices);
    one.prop_map(|event| Transition::Receive {
        events: vec![event],
        copies: 1,
    })
    .boxed()
}

/// Their times are past ones: whichever is stored first, the order is known.
fn events_at_once(state: &State) -> BoxedStrategy<Transition> {
    let events = proptest::collection::vec(event(state, past()), 1..8);
    let at_once = (events, 1_usize..=3).prop_map(|(mut events, copies)| {
        events.sort_by(|a, b| a.id.cmp(&b.id));
        events.dedup_by(|a, b| a.id == b.id);
        Transition::Receive { events, copies }
    });
    at_once.boxed()
}

fn event(state: &State, clock: impl Strategy<Value = Clock> + 'static) -> BoxedStrategy<Event> {
    let known: Vec<String> = state.events.keys().cloned().collect();
    let mut ids = vec![
        (4, "evt-[0-9]{1,4}".no_shrink().boxed()),
        (2, name(160).boxed()),
    ];
    if !known.is_empty() {
        ids.push((2, select(known).boxed()));
    }
    (
        Union::new_weighted(ids),
        address(state),
        text(LONGEST_INBOUND),
        clock,
    )
        .prop_map(|(id, address, text, clock)| Event {
            id,
            address,
            text,
            clock,
        })
        .boxed()
}

fn send(state: &State) -> BoxedStrategy<Transition> {
    let key = proptest::option::of(select(state.keys.clone()));
    let deferred = prop_oneof![3 => Just(false), 1 => Just(true)];
    let send = (
        address(state),
        text(LONGEST_OUTBOUND),
        key,
        deferred,
        1_usize..=3,
    )
        .prop_map(|(address, text, key, deferred, copies)| {
            let copies = if key.is_some() { copies } else { 1 };
            Transition::Send {
                outgoing: Outgoing {
                    address,
                    text,
                    key,
                    deferred,
                },
                copies,
            }
        });
    send.boxed()
}

fn treat(state: &State) -> BoxedStrategy<Transition> {
    let moods = prop_oneof![
        5 => select(vec![Mood::ServerError, Mood::LoseAnswer, Mood::Reset, Mood::Unreadable]),
        2 => Just(Mood::Reject),
        2 => Just(Mood::RateLimit),
    ];
    let treat = (select(state.participants.clone()), moods)
        .prop_map(|(participant, mood)| Transition::Treat { participant, mood });
    treat.boxed()
}

fn mark(state: &State) -> BoxedStrategy<Transition> {
    let marks = [
        Mark::Read,
        Mark::Close,
        Mark::Reopen,
        Mark::Archive,
        Mark::Unarchive,
    ];
    let known: Vec<Address> = state
        .conversations
        .iter()
        .map(|c| c.address.clone())
        .collect();
    (select(marks.to_vec()), select(known))
        .prop_map(|(mark, address)| Transition::Mark(mark, address))
        .boxed()
}

/// Mostly one that can be retried or canceled.
fn message(state: &State) -> impl Strategy<Value = usize> + use<> {
    let backs = |is_one: fn(Stage) -> bool| -> Vec<usize> {
        let all = 0..state.messages.len();
        all.filter(|back| is_one(state.messages[state.number(*back)].stage))
            .collect()
    };
    let choices = [
        (2, backs(|_| true)),
        (4, backs(|stage| stage == Stage::Parked)),
        (
            4,
            backs(|stage| !matches!(stage, Stage::Received | Stage::Sent)),
        ),
    ];
    let choices = choices.into_iter().filter(|(_, backs)| !backs.is_empty());
    Union::new_weighted(
        choices
            .map(|(weight, backs)| (weight, select(backs)))
            .collect(),
    )
}

fn address(state: &State) -> impl Strategy<Value = Address> + use<> {
    let channels = prop_oneof![3 => Just(Channel::Whatsapp), 1 => Just(Channel::Instagram)];
    (channels, select(state.participants.clone())).prop_map(|(channel, participant)| Address {
        channel,
        participant,
    })
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        6 => past(),
        1 => (0_u8..3).prop_map(Clock::Ahead),
        1 => (1_u32..50_000_000).prop_map(Clock::FarAhead),
    ]
}

/// Often the same, and as far back as it goes.
fn past() -> impl Strategy<Value = Clock> {
    prop_oneof![
        4 => (0_i64..3).prop_map(|seconds| 1_735_725_600_000 + seconds * 1000),
        1 => (-62_135_596_800_000_i64..1_735_725_600_000).no_shrink(),
    ]
    .prop_map(Clock::Past)
}

/// A participant, an event id or a key: up to so many of any characters that are no control
/// characters. Some only look the same.
fn name(longest: usize) -> impl Strategy<Value = String> {
    let hard = [
        "é",
        "e\u{301}",
        "É",
        "user-1",
        "User-1",
        "user-1 ",
        " ",
        "user\u{200d}-1",
        "\u{202e}1-resu",
        "%_\\'\"",
        "null",
        "\u{feff}",
        "👩\u{200d}👩\u{200d}👧",
        "\u{10ffff}",
    ];
    prop_oneof![
        4 => "user-[0-9]{1,3}".no_shrink(),
        2 => select(hard.to_vec()).prop_map(str::to_owned),
        2 => "\\PC{1,12}".no_shrink(),
        1 => (longest - 2..=longest).prop_map(|length| "é".repeat(length)),
    ]
}

/// Any characters but NUL, up to so many, and often around the 200 of a preview. A failure that has
/// nothing to do with the text gets a short one; else it is not made smaller character by
/// character: that would take all of the time.
fn text(longest: usize) -> BoxedStrategy<String> {
    let lengths = prop_oneof![4 => 198_usize..203, 1 => longest - 2..=longest];
    let long = ("[a\u{301}🙂ğ\u{5d0}]{1,5}".no_shrink(), lengths);
    let long = long.prop_map(|(pattern, length)| pattern.chars().cycle().take(length).collect());
    let texts = prop_oneof![
        4 => "[a-c]{1,2}",
        3 => "\\PC{1,30}".no_shrink(),
        2 => "[^\\x00]{1,30}".no_shrink(),
        2 => "[\\x01-\\x20\\x7f\u{80}\u{300}\u{5d0}\u{627}\u{200d}\u{200f}\u{2028}\u{202e}\u{feff}👩🙂ğ%_'\"\\\\]{1,12}".no_shrink(),
        3 => long,
    ];
    texts.boxed()
}

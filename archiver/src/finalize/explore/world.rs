//! The model's store, row, and the calls on their way to both.
//!
//! Owns what is true; archivers learn of it by replies only.

use crate::finalize::verdict::{Proof, Reply};
use crate::store::Precondition;
use rand::{Rng as _, rngs::StdRng};
use std::collections::BTreeMap;

/// What a kind of store does differently.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    pub(super) honours_preconditions: bool,
    /// Completing once more is answered with success; otherwise with "no such upload".
    pub(super) completes_twice: bool,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    RequestLost,
    ReplyLost,
    /// The caller gives up waiting; the call takes effect later, or never.
    Late,
    /// It takes effect, and does once more later.
    Doubled,
}

/// Bytes of a part. The first one is sent early in a live form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Live,
    Final,
}

pub(super) type Parts = BTreeMap<u8, Form>;

/// Where the archive goes, or beside it where somebody else's object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Regular,
    Beside,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) key: Key,
    pub(super) parts: Parts,
    is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Foreign,
    Ours { is_whole: bool },
}

/// What the database knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) epoch: u32,
    pub(super) leased: bool,
    pub(super) work: Work,
    pub(super) is_final: bool,
    pub(super) archive: Option<Key>,
}

/// How far the making has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) beside: bool,
    pub(super) upload: Option<usize>,
    /// Parts that the store has taken.
    pub(super) parts: Parts,
    /// The row says what the object will hold.
    pub(super) planned: bool,
}

impl Work {
    pub(super) fn key(&self) -> Key {
        if self.beside {
            Key::Beside
        } else {
            Key::Regular
        }
    }
}

/// A call that changes something.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Create(Key),
    Part(usize, u8, Form),
    Complete(usize, Parts, Precondition),
    Abort(usize),
    Note(u32, Work),
    Finish(u32, Key),
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Upload(usize),
    Reply(Reply),
    /// The row is still claimed by whoever wrote.
    Held,
    Lost,
}

#[derive(Debug)]
pub(super) struct World {
    profile: Profile,
    objects: BTreeMap<Key, Object>,
    uploads: Vec<Upload>,
    pub(super) row: Row,
    late: Vec<Call>,
    flips: bool,
    /// Where somebody else's object was planted.
    foreign: bool,
}

/// Parts of the archive.
pub(super) const PARTS: u8 = 3;

impl World {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            objects: BTreeMap::new(),
            uploads: Vec::new(),
            row: Row::default(),
            late: Vec::new(),
            flips: false,
            foreign: false,
        }
    }

    pub(super) fn plant_foreign(&mut self) {
        self.objects.insert(Key::Regular, Object::Foreign);
        self.foreign = true;
    }

    /// A call with its fate; `None`: nobody knows what became of it.
    pub(super) fn call(&mut self, call: Call, fate: Fate) -> Option<Answer> {
        match fate {
            Fate::Answered => Some(self.apply_badly(call)),
            Fate::RequestLost => None,
            Fate::ReplyLost => {
                self.apply_badly(call);
                None
            }
            Fate::Late => {
                self.late.push(call);
                None
            }
            Fate::Doubled => {
                self.late.push(call.clone());
                Some(self.apply(call))
            }
        }
    }

    /// One of the late calls takes effect, or is lost for good.
    pub(super) fn deliver_late(&mut self, random: &mut StdRng) -> Option<Call> {
        if self.late.is_empty() {
            return None;
        }
        let call = self
            .late
            .swap_remove(random.random_range(0..self.late.len()));
        if random.random_bool(0.8) {
            self.apply(call.clone());
        }
        Some(call)
    }

    fn apply_badly(&mut self, call: Call) -> Answer {
        let made = match &call {
            Call::Complete(upload, ..) if self.flips => {
                let upload = &self.uploads[*upload];
                upload.is_open.then_some(upload.key)
            }
            _ => None,
        };
        let answer = self.apply(call);
        if let Some(Object::Ours { is_whole }) = made.and_then(|key| self.objects.get_mut(&key))
            && answer == Answer::Reply(Reply::Done)
        {
            *is_whole = false;
            self.flips = false;
        }
        answer
    }

    fn apply(&mut self, call: Call) -> Answer {
        match call {
            Call::Create(key) => {
                let parts = Parts::new();
                self.uploads.push(Upload {
                    key,
                    parts,
                    is_open: true,
                });
                Answer::Upload(self.uploads.len() - 1)
            }
            Call::Part(upload, number, form) => {
                let upload = &mut self.uploads[upload];
                if !upload.is_open {
                    return Answer::Reply(Reply::No);
                }
                upload.parts.insert(number, form);
                Answer::Reply(Reply::Done)
            }
            Call::Complete(upload, parts, precondition) => {
                Answer::Reply(self.complete(upload, &parts, &precondition))
            }
            Call::Abort(upload) => {
                self.uploads[upload].is_open = false;
                Answer::Reply(Reply::Done)
            }
            Call::Note(epoch, work) => {
                if self.row.epoch != epoch {
                    return Answer::Lost;
                }
                self.row.work = work;
                Answer::Held
            }
            Call::Finish(epoch, key) => {
                if self.row.epoch != epoch {
                    return Answer::Lost;
                }
                self.row.is_final = true;
                self.row.leased = false;
                self.row.archive = Some(key);
                Answer::Held
            }
        }
    }

    fn complete(&mut self, id: usize, parts: &Parts, precondition: &Precondition) -> Reply {
        let upload = &self.uploads[id];
        let key = upload.key;
        if !upload.is_open {
            let is_there = self.objects.contains_key(&key) && upload.parts == *parts;
            return if self.profile.completes_twice && is_there {
                Reply::Done
            } else {
                Reply::No
            };
        }
        let refused = self.profile.honours_preconditions
            && *precondition == Precondition::Absent
            && self.objects.contains_key(&key);
        if refused || upload.parts != *parts {
            return Reply::No;
        }
        let is_whole =
            parts.len() == usize::from(PARTS) && parts.values().all(|form| *form == Form::Final);
        self.objects.insert(key, Object::Ours { is_whole });
        self.uploads[id].is_open = false;
        Reply::Done
    }

    /// What HEAD and, if need be, reading back say.
    pub(super) fn prove(&self, key: Key) -> Proof {
        match self.objects.get(&key) {
            None => Proof::Absent,
            Some(Object::Foreign) => Proof::Foreign,
            Some(Object::Ours { is_whole: true }) => Proof::Proved,
            Some(Object::Ours { is_whole: false }) => Proof::Broken(Precondition::Unconditional),
        }
    }

    /// Takes the row, unless somebody holds it.
    pub(super) fn claim(&mut self) -> Option<u32> {
        if self.row.leased || self.row.is_final {
            return None;
        }
        self.row.leased = true;
        self.row.epoch += 1;
        Some(self.row.epoch)
    }

    pub(super) fn expire_uploads(&mut self) {
        for upload in &mut self.uploads {
            upload.is_open = false;
        }
    }

    /// The next object that a caller waits for is stored with a wrong bit.
    pub(super) fn flip_a_bit(&mut self, flips: bool) {
        self.flips = flips;
    }

    /// Drops uploads that nobody can want any more: the row is final.
    pub(super) fn sweep(&mut self) {
        if self.row.is_final {
            self.expire_uploads();
        }
    }

    /// What must hold at every instant.
    pub(super) fn check(&self) {
        if self.foreign {
            let regular = self.objects.get(&Key::Regular);
            assert_eq!(
                regular,
                Some(&Object::Foreign),
                "nobody else's object is touched"
            );
        }
        if let Some(key) = self.row.archive {
            let there = self.objects.get(&key);
            let whole = Object::Ours { is_whole: true };
            assert_eq!(there, Some(&whole), "what the row calls archived is there");
        }
    }

    /// What must hold once everything is well again.
    pub(super) fn check_final(&self) {
        self.check();
        assert!(self.row.is_final, "the show is archived");
        let ours = self
            .objects
            .values()
            .filter(|object| **object != Object::Foreign);
        assert_eq!(ours.count(), 1, "there is one archive");
        let open = self.uploads.iter().filter(|upload| upload.is_open);
        assert_eq!(open.count(), 0, "no upload is left open");
    }
}

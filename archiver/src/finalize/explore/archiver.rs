//! The model of one archiver process at work on the recording.
//!
//! Owns the order of its calls; each step makes one. Must decide by replies alone.

use super::world::{Answer, Call, Fate, Form, PARTS, Parts, Work, World};
use crate::{
    finalize::verdict::{Next, Proof, Reply, next},
    store::Precondition,
};

/// What comes next.
#[derive(Clone, Debug)]
pub(super) enum At {
    /// The row is not claimed, or was found final.
    Idle,
    Done,
    /// What the row says was being made may be there.
    Recalling,
    /// Whose object has the key?
    Looking,
    Creating,
    /// The row learns of the upload, or of the parts, before going on.
    Noting(Box<Self>),
    /// Parts still to be sent, the last first.
    Sending(Vec<(u8, Form)>),
    Planning,
    Completing,
    /// What is there decides what the reply to Complete meant.
    Proving(Reply),
    /// The upload is of no use any more.
    Aborting {
        upload: usize,
        then: Box<Self>,
    },
    Finishing,
}

#[derive(Clone, Debug)]
pub(super) struct Archiver {
    id: usize,
    epoch: u32,
    work: Work,
    precondition: Precondition,
    pub(super) at: At,
}

impl Archiver {
    /// A process that has just been started.
    pub(super) fn new(id: usize) -> Self {
        Self {
            id,
            epoch: 0,
            work: Work::default(),
            precondition: Precondition::Absent,
            at: At::Idle,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.at, At::Done)
    }

    /// Makes one call and digests its reply.
    pub(super) fn step(&mut self, world: &mut World, fate: Fate) {
        self.at = match self.at.clone() {
            At::Idle if world.row.is_final => At::Done,
            At::Idle => self.claim(world),
            At::Done => At::Done,
            At::Recalling => self.recall(world),
            At::Looking => self.look(world),
            At::Creating => self.create(world, fate),
            At::Noting(then) => self.note(world, fate, *then),
            At::Sending(left) => self.send(world, fate, left),
            At::Planning => {
                self.work.planned = true;
                At::Noting(Box::new(At::Completing))
            }
            At::Completing => self.complete(world, fate),
            At::Proving(reply) => self.prove(world, reply),
            At::Aborting { upload, then } => {
                // Whatever becomes of it: it is not asked for again.
                world.call(Call::Abort(upload), fate);
                *then
            }
            At::Finishing => self.finish(world, fate),
        };
    }

    fn claim(&mut self, world: &mut World) -> At {
        let Some(epoch) = world.claim() else {
            return At::Idle;
        };
        *self = Self {
            epoch,
            work: world.row.work.clone(),
            ..Self::new(self.id)
        };
        if self.work.planned {
            At::Recalling
        } else {
            At::Looking
        }
    }

    fn recall(&mut self, world: &World) -> At {
        match world.prove(self.work.key()) {
            Proof::Proved => At::Finishing,
            Proof::Absent | Proof::Broken(_) | Proof::Foreign => At::Looking,
        }
    }

    fn look(&mut self, world: &World) -> At {
        match world.prove(self.work.key()) {
            Proof::Foreign => self.step_aside(),
            Proof::Broken(precondition) => {
                self.precondition = precondition;
                self.go_on()
            }
            Proof::Absent | Proof::Proved => self.go_on(),
        }
    }

    fn step_aside(&mut self) -> At {
        assert!(!self.work.beside, "only one foreign object was planted");
        self.work = Work {
            beside: true,
            ..Work::default()
        };
        At::Noting(Box::new(At::Looking))
    }

    fn go_on(&self) -> At {
        if self.work.upload.is_none() {
            At::Creating
        } else {
            At::Sending(self.missing())
        }
    }

    /// The first part goes up twice: early, in its live form, and at the end.
    fn missing(&self) -> Vec<(u8, Form)> {
        let mut all = vec![(1, Form::Final)];
        all.extend((2..=PARTS).rev().map(|number| (number, Form::Final)));
        if !self.work.parts.contains_key(&1) {
            all.push((1, Form::Live));
        }
        all.retain(|(number, form)| self.work.parts.get(number) != Some(form));
        all
    }

    fn create(&mut self, world: &mut World, fate: Fate) -> At {
        match world.call(Call::Create(self.work.key()), fate) {
            Some(Answer::Upload(id)) => {
                self.work.upload = Some(id);
                self.work.parts.clear();
                At::Noting(Box::new(At::Sending(self.missing())))
            }
            // Another one may be begun in vain: the sweep finds it.
            _ => At::Creating,
        }
    }

    fn note(&mut self, world: &mut World, fate: Fate, then: At) -> At {
        match world.call(Call::Note(self.epoch, self.work.clone()), fate) {
            Some(Answer::Held) => then,
            Some(_) => self.overtaken(&then),
            None => At::Noting(Box::new(then)),
        }
    }

    /// Somebody else works on it. An upload that the row never named is dropped.
    fn overtaken(&self, then: &At) -> At {
        match (then, self.work.upload) {
            (At::Sending(_), Some(upload)) if self.work.parts.is_empty() => At::Aborting {
                upload,
                then: Box::new(At::Idle),
            },
            _ => At::Idle,
        }
    }

    fn send(&mut self, world: &mut World, fate: Fate, mut left: Vec<(u8, Form)>) -> At {
        let Some(upload) = self.work.upload else {
            return At::Looking;
        };
        let Some((number, form)) = left.pop() else {
            return At::Noting(Box::new(At::Planning));
        };
        match world.call(Call::Part(upload, number, form), fate) {
            Some(Answer::Reply(Reply::Done)) => {
                self.work.parts.insert(number, form);
                At::Sending(left)
            }
            Some(_) => self.start_over(upload),
            None => {
                left.push((number, form));
                At::Sending(left)
            }
        }
    }

    /// The upload is gone, or of no use: it is dropped, and all is sent anew.
    fn start_over(&mut self, upload: usize) -> At {
        let then = self.forget_upload();
        At::Aborting {
            upload,
            then: Box::new(then),
        }
    }

    fn forget_upload(&mut self) -> At {
        self.work.upload = None;
        self.work.parts = Parts::new();
        At::Noting(Box::new(At::Looking))
    }

    fn complete(&mut self, world: &mut World, fate: Fate) -> At {
        let Some(upload) = self.work.upload else {
            return At::Looking;
        };
        let call = Call::Complete(upload, self.work.parts.clone(), self.precondition.clone());
        match world.call(call, fate) {
            Some(Answer::Reply(reply)) => At::Proving(reply),
            _ => At::Proving(Reply::Unknown),
        }
    }

    fn prove(&mut self, world: &World, reply: Reply) -> At {
        let upload = self.work.upload;
        let dropped = |then: At| match (reply, upload) {
            // Unless it was this very upload that made the object, its parts are still kept.
            (Reply::Unknown | Reply::No, Some(upload)) => At::Aborting {
                upload,
                then: Box::new(then),
            },
            _ => then,
        };
        match next(reply, world.prove(self.work.key())) {
            Next::Accept => dropped(At::Finishing),
            Next::Again => At::Completing,
            Next::StartOver(precondition) => {
                self.precondition = precondition;
                dropped(self.forget_upload())
            }
            Next::Conflict => dropped(self.step_aside()),
        }
    }

    fn finish(&mut self, world: &mut World, fate: Fate) -> At {
        match world.call(Call::Finish(self.epoch, self.work.key()), fate) {
            Some(Answer::Held) => At::Done,
            Some(_) => At::Idle,
            None => At::Finishing,
        }
    }
}

//! What the tasks of an engine's stage gave back: columns, small results inside, large ones by reference.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

/// Results of one report, in the order in which they were made. An item of the state table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultPage {
    /// The range they were made in.
    pub range: u64,
    /// The claim they were made under.
    pub epoch: u64,
    /// The report they belong to.
    pub seq: u64,
    /// Which try it was.
    pub attempt: u32,
    /// Who made them, and with what: an index into the session's list would save bytes and cost a lookup that outlives the session.
    pub made_by: String,
    /// The tasks.
    pub tasks: Vec<u64>,
    /// Whether each succeeded: 1, or failed: 0. The result of a failed task is its [`TaskError`], packed.
    pub ok: Vec<u8>,
    /// How long each ran, microseconds.
    pub run_us: Vec<u64>,
    /// How long each result is, bytes.
    pub lens: Vec<u32>,
    /// Where the results are, one after the other.
    pub body: ResultBody,
}

/// Where results are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultBody {
    /// Here.
    Inline(Vec<u8>),
    /// In this object, which holds nothing else.
    Object(String),
}

/// Why a task failed, as its engine says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// The kind of error, in the engine's language: `ZeroDivisionError`.
    pub kind: String,
    /// What is said of it.
    pub message: String,
    /// Where it happened, if the engine can say; the last it wrote, if it has crashed.
    pub traceback: String,
    /// The error itself in the session's output format, for a client that speaks the engine's language; may be empty.
    pub value: Vec<u8>,
}

impl ResultPage {
    /// How many results.
    pub const fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Checks what a decoder cannot: that all columns are of one length, and that the body, when it is at hand, is as long as they say.
    pub fn check(&self) -> Result<()> {
        let n = self.tasks.len();
        let even = [self.ok.len(), self.run_us.len(), self.lens.len()].iter().all(|len| *len == n);
        let sum: u64 = self.lens.iter().map(|l| u64::from(*l)).sum();
        let whole = match &self.body {
            ResultBody::Inline(bytes) => bytes.len() as u64 == sum,
            ResultBody::Object(_) => true,
        };
        if even && whole { Ok(()) } else { Err(Error::corrupt(format!("a page of results of range {} is damaged", self.range))) }
    }

    /// The results, each with its task, out of the page's body.
    pub fn split(&self, body: &Bytes) -> Result<Vec<(u64, Bytes)>> {
        let mut at = 0_usize;
        let mut out = Vec::with_capacity(self.len());
        for (task, len) in self.tasks.iter().zip(&self.lens) {
            let end = at.saturating_add(*len as usize);
            if end > body.len() {
                return Err(Error::corrupt(format!("the results of range {} end before task {task}", self.range)));
            }
            out.push((*task, body.slice(at..end)));
            at = end;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_split_into_its_results_and_damage_is_said() {
        let page = ResultPage {
            range: 3,
            epoch: 1,
            seq: 1,
            attempt: 1,
            made_by: "w".into(),
            tasks: vec![7, 9],
            ok: vec![1, 0],
            run_us: vec![5, 6],
            lens: vec![2, 3],
            body: ResultBody::Inline(b"abcde".to_vec()),
        };
        page.check().unwrap();
        let split = page.split(&Bytes::from_static(b"abcde")).unwrap();
        assert_eq!(split, [(7, Bytes::from_static(b"ab")), (9, Bytes::from_static(b"cde"))]);
        assert!(page.split(&Bytes::from_static(b"abcd")).unwrap_err().to_string().contains("task 9"));
        let short = ResultPage { lens: vec![2], ..page.clone() };
        assert!(short.check().is_err());
        let torn = ResultPage { body: ResultBody::Inline(b"abcd".to_vec()), ..page };
        assert!(torn.check().is_err());
    }
}

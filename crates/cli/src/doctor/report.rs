//! What the checks found, printed as it comes.

use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Failure, Kind, Result, one_line};
use crate::progress::Progress;

/// What one check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// It works, and should not be left so.
    Warning,
    /// It does not work, or must not be left so.
    Problem(Kind),
    /// It can't be found out now.
    Skipped,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem(_) => "problem",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug)]
struct Finding {
    /// A stable word for scripts.
    check: &'static str,
    verdict: Verdict,
    text: String,
    /// What to run or to change.
    fix: Option<String>,
}

/// Everything found so far.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) ctx: &'a Context,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    pub(super) fn new(ctx: &'a Context) -> Self {
        Self { ctx, findings: Vec::new() }
    }

    pub(super) fn ok(&mut self, check: &'static str, text: impl Into<String>) -> Result<()> {
        self.add(check, Verdict::Ok, text.into(), None)
    }

    pub(super) fn warning(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Result<()> {
        self.add(check, Verdict::Warning, text.into(), Some(fix.into()))
    }

    pub(super) fn problem(
        &mut self,
        check: &'static str,
        kind: Kind,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Result<()> {
        self.add(check, Verdict::Problem(kind), text.into(), Some(fix.into()))
    }

    /// What a command would fail with: the sentence, and the fix where it has one.
    pub(super) fn failed(&mut self, check: &'static str, failure: &Failure) -> Result<()> {
        let (text, fix) = parted(&failure.message);
        self.add(check, Verdict::Problem(failure.kind), text, fix)
    }

    /// A sentence that has its fix behind a semicolon.
    pub(super) fn warned(&mut self, check: &'static str, sentence: &str) -> Result<()> {
        let (text, fix) = parted(sentence);
        self.add(check, Verdict::Warning, text, fix)
    }

    pub(super) fn skipped(&mut self, check: &'static str, why: impl Into<String>) -> Result<()> {
        self.add(check, Verdict::Skipped, why.into(), None)
    }

    /// Says on a terminal what is being waited for, until the value is dropped.
    pub(super) fn waiting(&self, what: &str) -> Progress {
        let mut progress = Progress::of_parts(self.ctx.quiet);
        progress.wait(what.to_owned());
        progress
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        text: String,
        fix: Option<String>,
    ) -> Result<()> {
        let (text, fix) = (one_line(&text), fix.map(|fix| one_line(&fix)));
        if !self.ctx.json {
            let out = &self.ctx.out;
            out.line(format!("{:7}  {check:13}  {text}", verdict.as_str()))?;
            if let Some(fix) = &fix {
                out.line(format!("{:24} fix: {fix}", ""))?;
            }
            // Who waits for the next check sees this one.
            out.flush()?;
        }
        self.findings.push(Finding { check, verdict, text, fix });
        Ok(())
    }

    /// The end: the exit code is that of the first problem.
    pub(super) fn finish(self) -> Result<()> {
        let count = |wanted: fn(Verdict) -> bool| {
            self.findings.iter().filter(|finding| wanted(finding.verdict)).count()
        };
        let problems = count(|verdict| matches!(verdict, Verdict::Problem(_)));
        let warnings = count(|verdict| verdict == Verdict::Warning);
        let summary = format!("{}, {}", plural(problems, "problem"), plural(warnings, "warning"));
        if self.ctx.json {
            self.ctx.out.json(&json!({
                "problems": problems,
                "warnings": warnings,
                "checks": self.findings.iter().map(shown).collect::<Vec<_>>(),
            }))?;
        } else {
            self.ctx.out.line(&summary)?;
        }
        let first = self.findings.iter().find_map(|finding| match finding.verdict {
            Verdict::Problem(kind) => Some((kind, finding)),
            _ => None,
        });
        match first {
            None => Ok(()),
            Some((kind, finding)) => {
                Err(Failure::new(kind, format!("{summary}; the first: {}: {}", finding.check, finding.text)))
            }
        }
    }
}

fn shown(finding: &Finding) -> Value {
    let mut shown = json!({
        "check": finding.check, "verdict": finding.verdict.as_str(), "text": finding.text, "fix": finding.fix,
    });
    if let Verdict::Problem(kind) = finding.verdict {
        shown["kind"] = json!(kind.as_str());
    }
    shown
}

fn parted(sentence: &str) -> (String, Option<String>) {
    match sentence.split_once("; ") {
        Some((text, fix)) => (text.to_owned(), Some(fix.to_owned())),
        None => (sentence.to_owned(), None),
    }
}

fn plural(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

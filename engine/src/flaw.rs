//! What is wrong with a mapping or a definition, and how is it mended?

/// A mapping or a definition that cannot be used, with what a user needs to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub kind: FlawKind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// It is not of the form that rule 2 describes, or makes no sense.
    Invalid,
    /// A mapping names a column that the table does not have.
    UnknownColumn,
    /// A mapping uses a column whose type does not serve, or compares it with a value of another type.
    WrongType,
}

impl Flaw {
    pub(crate) fn new(kind: FlawKind, message: String) -> Flaw {
        Flaw { kind, message, detail: None, hint: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Flaw {
        Flaw::new(FlawKind::Invalid, message.into())
    }

    pub(crate) fn wrong_type(message: impl Into<String>) -> Flaw {
        Flaw::new(FlawKind::WrongType, message.into())
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Flaw {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Flaw {
        self.hint = Some(hint.into());
        self
    }
}

//! Decisions of a caller that would be bare `bool`s in signatures.

macro_rules! switches {
    ($($(#[doc = $doc:literal])+ $name:ident, yes: $yes:literal, no: $no:literal;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum $name {
                #[doc = $yes]
                Yes,
                #[doc = $no]
                No,
            }

            impl From<bool> for $name {
                fn from(yes: bool) -> Self {
                    if yes { $name::Yes } else { $name::No }
                }
            }

            impl $name {
                pub(crate) fn is_yes(self) -> bool {
                    self == $name::Yes
                }
            }
        )+
    };
}

switches! {
    /// Whether a text gets the special tokens that the tokenizer puts around one, such as BOS.
    AddSpecialTokens, yes: "It gets them.", no: "It stays as it is.";
    /// Whether special tokens are left out of decoded text.
    SkipSpecialTokens, yes: "They are left out.", no: "They are written as they are.";
    /// Whether a rendered conversation ends with what opens the assistant's answer.
    AddGenerationPrompt, yes: "It does.", no: "It ends with its last message.";
}

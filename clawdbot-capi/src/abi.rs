/// Version of the binary interface that this header describes, and number in the shared library's name. It changes
/// when a program has to be compiled anew.
pub const CLAWDBOT_ABI_VERSION: u32 = 0;

/// Version of the binary interface that this header describes. It changes when a program has to be compiled again.
pub const CLAWDBOT_ABI_VERSION: u32 = 0;

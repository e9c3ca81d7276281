// The header alone, twice, as C++.
#include "clawdbot.h"
#include "clawdbot.h"

int main() { return clawdbot_abi_version() == CLAWDBOT_ABI_VERSION ? 0 : 1; }

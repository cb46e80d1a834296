/* What bindgen reads: the shim's own declarations, nothing of PHP's. */
#include "csrc/shim.h"

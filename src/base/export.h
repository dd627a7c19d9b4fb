#pragma once

/// Marks what libespalier.so exports; everything else is hidden.
#define ESPALIER_API __attribute__((visibility("default")))

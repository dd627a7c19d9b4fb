// What the shared library shows. Everything else is hidden.
#pragma once

/// Marks a class or function of the installed headers: visible in libespalier.so.
#define ESPALIER_API __attribute__((visibility("default")))

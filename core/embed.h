/* Files built into the binary: EMBED(name, "pricing/settle.lua") defines `extern const char name[], name_end[]`. */
#ifndef SLUICE_CORE_EMBED_H
#define SLUICE_CORE_EMBED_H

/* The path is relative to the repository's root, where the compiler is started. A NUL follows the bytes. */
#define EMBED(name, path)                                                                                            \
    __asm__(".section .rodata\n.global " #name "\n.type " #name ", @object\n.balign 16\n" #name ":\n.incbin \"" path \
            "\"\n.global " #name "_end\n" #name "_end:\n.byte 0\n.previous\n");                                      \
    extern const char name[], name##_end[]

#endif

/* Computes, and prints the nanoseconds of the fastest of RUNS runs of each part: what limits cost a guest
 * that does nothing else. Parts of many kinds, as the cost differs: it is paid per loop and per call.
 *
 *   clang --target=wasm32-wasi --sysroot=/usr -O2 -s compute.c -o ../testdata/compute.wasm
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 15 };

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t seed;
static uint32_t any(void) { /* xorshift */
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed;
}

/* Bytes: a cipher of additions, rotations and exclusive ors (ChaCha20's rounds) over 512 KiB. */
static uint32_t rotated(uint32_t x, int n) { return x << n | x >> (32 - n); }
static void quarter(uint32_t *s, int a, int b, int c, int d) {
  s[a] += s[b], s[d] = rotated(s[d] ^ s[a], 16);
  s[c] += s[d], s[b] = rotated(s[b] ^ s[c], 12);
  s[a] += s[b], s[d] = rotated(s[d] ^ s[a], 8);
  s[c] += s[d], s[b] = rotated(s[b] ^ s[c], 7);
}
static uint32_t cipher(void) {
  uint32_t key[16], sum = 0;
  for (int i = 0; i < 16; i++) key[i] = (uint32_t)i * 0x9e3779b9u;
  for (uint32_t block = 0; block < 8192; block++) {
    uint32_t s[16];
    key[12] = block;
    memcpy(s, key, sizeof s);
    for (int round = 0; round < 10; round++) {
      quarter(s, 0, 4, 8, 12), quarter(s, 1, 5, 9, 13);
      quarter(s, 2, 6, 10, 14), quarter(s, 3, 7, 11, 15);
      quarter(s, 0, 5, 10, 15), quarter(s, 1, 6, 11, 12);
      quarter(s, 2, 7, 8, 13), quarter(s, 3, 4, 9, 14);
    }
    for (int i = 0; i < 16; i++) sum ^= s[i] + key[i];
  }
  return sum;
}

/* Comparisons through a pointer. */
static uint32_t numbers[20000];
static int compared(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}
static uint32_t sort(void) {
  const size_t count = sizeof numbers / sizeof *numbers;
  seed = 7;
  for (size_t i = 0; i < count; i++) numbers[i] = any();
  qsort(numbers, count, sizeof *numbers, compared);
  return numbers[count / 2];
}

/* Text: words are counted in a table. */
static uint32_t words(void) {
  static char text[200000];
  static struct { uint32_t hash, count; } table[1 << 16];
  uint32_t most = 0;
  seed = 3;
  for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = any() % 6 ? (char)('a' + any() % 26) : ' ';
  memset(table, 0, sizeof table);
  for (const char *at = text; *at;) {
    uint32_t hash = 2166136261u;
    while (*at == ' ') at++;
    while (*at && *at != ' ') hash = (hash ^ (uint8_t)*at++) * 16777619u;
    uint32_t i = hash & 0xffff;
    while (table[i].count && table[i].hash != hash) i = (i + 1) & 0xffff;
    table[i].hash = hash;
    if (++table[i].count > most) most = table[i].count;
  }
  return most;
}

/* Floating point: a product of matrices, one dot product per cell. */
enum { SIDE = 128 };
static double left[SIDE][SIDE], right[SIDE][SIDE], product[SIDE][SIDE];
static uint32_t matrix(void) {
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) left[i][j] = i & 7, right[i][j] = j & 15;
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      double cell = 0;
      for (int k = 0; k < SIDE; k++) cell += left[i][k] * right[k][j];
      product[i][j] = cell;
    }
  return (uint32_t)product[100][100];
}

/* Floating point: five bodies that attract each other. */
static uint32_t bodies(void) {
  struct { double x, y, z, vx, vy, vz, mass; } b[5] = {
      {0, 0, 0, 0, 0, 0, 39},          {4.8, -1.1, -.1, .6, 2.8, -.02, .03},
      {8.3, 4.1, -.4, -1, 1.8, .01, .01}, {12.8, -15.1, -.2, 1.1, .9, -.01, .001},
      {15.3, -25.9, .2, 1, .6, -.03, .002}};
  for (int step = 0; step < 20000; step++) {
    for (int i = 0; i < 5; i++)
      for (int j = i + 1; j < 5; j++) {
        double x = b[i].x - b[j].x, y = b[i].y - b[j].y, z = b[i].z - b[j].z;
        double square = x * x + y * y + z * z, force = .01 / (square * sqrt(square));
        b[i].vx -= x * b[j].mass * force, b[j].vx += x * b[i].mass * force;
        b[i].vy -= y * b[j].mass * force, b[j].vy += y * b[i].mass * force;
        b[i].vz -= z * b[j].mass * force, b[j].vz += z * b[i].mass * force;
      }
    for (int i = 0; i < 5; i++)
      b[i].x += .01 * b[i].vx, b[i].y += .01 * b[i].vy, b[i].z += .01 * b[i].vz;
  }
  return (uint32_t)(int32_t)(b[1].x * 1000);
}

/* Calls and nothing else: the 27th Fibonacci number by its definition. */
static uint32_t fibonacci(uint32_t n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
static uint32_t calls(void) { return fibonacci(27); }

int main(void) {
  const struct { const char *name; uint32_t (*run)(void); } parts[] = {
      {"cipher", cipher}, {"sort", sort}, {"words", words}, {"matrix", matrix}, {"bodies", bodies}, {"calls", calls}};
  volatile uint32_t sum = 0; /* so that nothing is left out */
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    uint64_t least = UINT64_MAX;
    for (int run = 0; run < RUNS; run++) {
      uint64_t start = now();
      sum += parts[i].run();
      uint64_t took = now() - start;
      if (took < least) least = took;
    }
    printf("%s %llu\n", parts[i].name, (unsigned long long)least);
  }
  return 0;
}

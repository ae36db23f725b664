// Blocks and threads that wait for one another: locks, a work queue, a barrier of the whole grid by hand.

struct Account {
  unsigned count;
  unsigned last;
  unsigned long long sum;
};

__device__ void deposit(volatile Account* account, unsigned amount) {
  account->count = account->count + 1;
  account->sum = account->sum + amount;
  account->last = amount;
}

// Every thread by itself; the lanes of a warp contend with each other and with all blocks. That each of them comes to
// hold the lock needs independent thread scheduling.
extern "C" __global__ void spin_lock(unsigned* lock, Account* account) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  deposit(account, thread);
  __threadfence();
  atomicExch(lock, 0);
}

// The same in the way that lanes in lockstep need: who has the lock leaves the loop with the others.
extern "C" __global__ void polite_lock(unsigned* lock, Account* account) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  for (bool done = false; !done;) {
    if (atomicCAS(lock, 0, 1) == 0) {
      __threadfence();
      deposit(account, thread);
      __threadfence();
      atomicExch(lock, 0);
      done = true;
    }
  }
}

// First come, first served: one thread of each block draws a number and waits for its turn.
extern "C" __global__ void ticket_lock(unsigned* tickets, unsigned* turn, Account* account, unsigned* order) {
  if (threadIdx.x == 0) {
    const unsigned mine = atomicAdd(tickets, 1);
    while (*static_cast<volatile unsigned*>(turn) != mine) __nanosleep(20);
    __threadfence();
    deposit(account, blockIdx.x);
    order[mine] = blockIdx.x;
    __threadfence();
    atomicAdd(turn, 1);
  }
}

struct Queue {
  int* items;
  int* written;  // 1 where an item has been put
  int* begin;    // next to take
  int* end;      // next to put
  int* pending;  // put but not yet done with
};

__device__ void put(const Queue& queue, int item) {
  atomicAdd(queue.pending, 1);
  const int place = atomicAdd(queue.end, 1);
  static_cast<volatile int*>(queue.items)[place] = item;
  __threadfence();
  static_cast<volatile int*>(queue.written)[place] = 1;
}

// Persistent threads take numbers until none is left. A number n > 1 leads to n / 2, and if it is odd also to n / 2
// + 1. taken[n] counts how often it came up.
extern "C" __global__ void drain(Queue queue, unsigned* taken) {
  while (true) {
    const int place = atomicAdd(queue.begin, 1);
    while (*static_cast<volatile int*>(&queue.written[place]) == 0) {
      if (*static_cast<volatile int*>(queue.pending) == 0) return;
      __nanosleep(50);
    }
    __threadfence();
    const int number = static_cast<volatile int*>(queue.items)[place];
    atomicAdd(&taken[number], 1);
    if (number > 1) {
      put(queue, number / 2);
      if (number % 2 == 1) put(queue, number / 2 + 1);
    }
    atomicSub(queue.pending, 1);
  }
}

// Every block writes its place, all meet, and every block adds up what all have written.
extern "C" __global__ void meet(unsigned* arrived, int* places, int* sums) {
  if (threadIdx.x == 0) {
    places[blockIdx.x] = blockIdx.x + 1;
    __threadfence();
    atomicAdd(arrived, 1);
    while (*static_cast<volatile unsigned*>(arrived) < gridDim.x) {
    }
    __threadfence();
  }
  __syncthreads();
  int sum = 0;
  for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += static_cast<volatile int*>(places)[i];
  atomicAdd(&sums[blockIdx.x], sum);
}

import { ApiError, call, onSignedOut } from './api';
import type { Principal } from './types';

const ORDER = ['viewer', 'user', 'operator', 'admin'];

class Session {
  /** `undefined` until the server has said who we are; `null` when nobody. */
  me = $state<Principal | null | undefined>(undefined);
  trouble = $state.raw<ApiError | null>(null);

  async look(): Promise<void> {
    try {
      this.me = await call<Principal>('GET', '/session');
      this.trouble = null;
    } catch (e) {
      const error = ApiError.of(e);
      if (error.status === 401 || error.status === 403) this.me = null;
      else this.trouble = error;
    }
  }

  async open(token: string): Promise<void> {
    this.me = await call<Principal>('POST', '/session', { body: { token } });
  }

  async close(): Promise<void> {
    await call('DELETE', '/session');
    this.me = null;
  }

  /** Whether our role includes this one. */
  may(role: 'user' | 'operator'): boolean {
    return ORDER.indexOf(this.me?.role ?? '') >= ORDER.indexOf(role);
  }

  /** Whether we may change what belongs to `user`. */
  owns(user: string): boolean {
    return this.may('operator') || (this.may('user') && this.me?.user === user);
  }
}

export const session = new Session();
onSignedOut(() => {
  session.me = null;
});
